import { once } from 'node:events';
import { Agent, type IncomingMessage, request } from 'node:http';
import { z } from 'zod';
import type { Target } from './protocol.ts';

/** One who sends commands, over HTTP connections that are kept. */
export interface Consumer {
  /** Resolves, once the server has accepted it, with the id under which the agent reads it. Rejects where it is refused. */
  command(agentName: string, sequence: number): Promise<string>;
  /** To all agents; resolves with the name under which the server knows it. */
  broadcast(sequence: number): Promise<string>;
  /** How many commands the server knows to be read. Rejects where some never will be. */
  confirmed(): Promise<number>;
  /** The same of one broadcast. */
  confirmedOf(broadcast: string): Promise<number>;
}

/** As much text as an event has. */
const padding = 'x'.repeat(300);

/** Throws where the server knows no commands. */
export function createConsumer({ commandUrl, siblingUrls = [], graphqlToken }: Target): Consumer {
  if (commandUrl === null) throw new Error('this server knows no commands');
  return graphqlToken === null ? bareConsumer(commandUrl) : graphqlConsumer(commandUrl, siblingUrls, graphqlToken);
}

const payloadOf = (sequence: number) => ({ seq: sequence, text: padding });

function graphqlConsumer(url: string, siblingUrls: readonly string[], token: string): Consumer {
  const post = createPost(url, token);
  const posts = [post, ...siblingUrls.map((sibling) => createPost(sibling, token))];

  async function ask<Data>(shape: z.ZodType<Data>, query: string, variables: object = {}, via = post): Promise<Data> {
    const answer = z
      .object({ data: shape.nullish(), errors: z.unknown().optional() })
      .parse(await via({ query, variables }));
    if (!answer.data || answer.errors) throw new Error(`the consumer was told: ${JSON.stringify(answer.errors)}`);
    return answer.data;
  }

  const sent = z.object({ sendMessage: z.object({ message: z.object({ id: z.string() }) }) });
  const sentToAll = z.object({ broadcast: z.object({ broadcast: z.object({ id: z.string() }) }) });
  const counted = z.object({
    gateway: z.object({
      statistics: z.object({ messages: z.array(z.object({ status: z.string(), count: z.number() })) }),
    }),
  });
  const progressed = z.object({
    node: z.object({ progress: z.object({ delivered: z.int(), failed: z.int(), expired: z.int() }) }),
  });

  return {
    async command(agentName, sequence) {
      const input = { agentId: agentName, channel: 'POLICIES', payload: payloadOf(sequence) };
      const query = 'mutation ($input: SendMessageInput!) { sendMessage(input: $input) { message { id } } }';
      const { sendMessage } = await ask(sent, query, { input });
      // A node id is base64url of `Message:` and the id that the agent is told.
      return Buffer.from(sendMessage.message.id, 'base64url').toString().slice('Message:'.length);
    },
    async broadcast(sequence) {
      const input = { channel: 'POLICIES', payload: payloadOf(sequence) };
      const query = 'mutation ($input: BroadcastInput!) { broadcast(input: $input) { broadcast { id } } }';
      const { broadcast } = await ask(sentToAll, query, { input });
      return broadcast.broadcast.id;
    },
    async confirmed() {
      const query = '{ gateway { statistics { messages { status count } } } }';
      const answers = await Promise.all(posts.map((via) => ask(counted, query, {}, via)));
      const messages = answers.flatMap(({ gateway }) => gateway.statistics.messages);
      refuseFailures(messages.some(({ status }) => ['FAILED', 'EXPIRED', 'CANCELLED'].includes(status)));
      return messages.reduce((sum, { status, count }) => sum + (status === 'DELIVERED' ? count : 0), 0);
    },
    async confirmedOf(broadcast) {
      const query = 'query ($id: ID!) { node(id: $id) { ... on Broadcast { progress { delivered failed expired } } } }';
      const { progress } = (await ask(progressed, query, { id: broadcast })).node;
      refuseFailures(progress.failed + progress.expired > 0);
      return progress.delivered;
    },
  };
}

function refuseFailures(hasFailed: boolean): void {
  if (hasFailed) throw new Error('a command failed or expired');
}

/** The floor's way: each agent confirms by a pong, and the server counts them. */
function bareConsumer(url: string): Consumer {
  const post = createPost(url, null);
  const accepted = z.object({ id: z.string(), confirmed: z.int() });
  const confirmed = async () => accepted.parse(await post({})).confirmed;
  let confirmedBefore = 0;
  return {
    command: async (agent, sequence) => accepted.parse(await post({ agent, payload: payloadOf(sequence) })).id,
    async broadcast(sequence) {
      const answer = accepted.parse(await post({ agent: null, payload: payloadOf(sequence) }));
      confirmedBefore = answer.confirmed;
      return answer.id;
    },
    confirmed,
    confirmedOf: async () => (await confirmed()) - confirmedBefore,
  };
}

/** Posts JSON and resolves with the JSON of the answer. */
function createPost(url: string, token: string | null): (body: object) => Promise<unknown> {
  const options = {
    method: 'POST',
    agent: new Agent({ keepAlive: true, noDelay: true }),
    headers: {
      'content-type': 'application/json',
      accept: 'application/json',
      ...(token === null ? {} : { authorization: `Bearer ${token}` }),
    },
  };
  return async (body) => {
    const text = JSON.stringify(body);
    const outgoing = request(url, options);
    outgoing.setHeader('content-length', Buffer.byteLength(text));
    outgoing.end(text);
    const [response]: IncomingMessage[] = await once(outgoing, 'response');
    if (!response) throw new Error('there is no answer');
    response.setEncoding('utf8');
    let answer = '';
    for await (const chunk of response) answer += chunk;
    if (response.statusCode !== 200) throw new Error(`the server answered ${response.statusCode}: ${answer}`);
    return JSON.parse(answer);
  };
}
