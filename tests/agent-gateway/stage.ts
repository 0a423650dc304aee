import { z } from 'zod';
import { eventually } from '../support/eventually.ts';
import { startTestGateway, type TestGateway, type TestGatewayOptions } from '../support/gateway.ts';
import { type DialOptions, type JsonObject, RawAgent } from './raw-agent.ts';
import { RawV2Agent, type V2DialOptions } from './raw-v2-agent.ts';

const answerSchema = z.object({
  data: z.record(z.string(), z.unknown()).nullish(),
  errors: z.array(z.object({ message: z.string() })).optional(),
});

const keysSchema = z.object({
  gateway: z.object({ keys: z.object({ current: z.string(), next: z.string().nullable() }) }),
});

const agentSchema = z.object({
  uid: z.string(),
  orgId: z.string(),
  connected: z.boolean(),
  enrollment: z.enum(['PENDING', 'APPROVED', 'REVOKED']),
  keyFingerprint: z.string(),
  pendingKeyFingerprint: z.string().nullable(),
  session: z.object({ connectedAt: z.string() }).nullable(),
});
export type SeenAgent = z.infer<typeof agentSchema>;

const eventSchema = z.object({
  messageId: z.string(),
  kind: z.string(),
  trusted: z.boolean(),
  sealed: z.boolean(),
  occurredAt: z.string(),
  channel: z.string(),
  payload: z.unknown(),
  severity: z.string().optional(),
});
export type SeenEvent = z.infer<typeof eventSchema>;

const messageSchema = z.object({
  id: z.string(),
  status: z.string(),
  attempts: z.number(),
  failure: z.string().nullable(),
});
export type SeenMessage = z.infer<typeof messageSchema>;

const eventFields = `messageId kind trusted sealed occurredAt channel payload
  ... on AnomalyEvent { severity } ... on ThreatEvent { severity }`;

/** A gateway, agents made by hand on one side, and a consumer's questions on the other. */
export interface Stage {
  readonly gateway: TestGateway;
  dial(options?: Partial<DialOptions>): Promise<RawAgent>;
  authenticated(options?: Partial<DialOptions>): Promise<RawAgent>;
  registered(options?: Partial<DialOptions> & { readonly facts?: JsonObject }): Promise<RawAgent>;
  /** A v2 agent that has upgraded and said nothing. */
  dialV2(options?: Partial<V2DialOptions>): Promise<RawV2Agent>;
  /** A v2 agent that has been let in. */
  connectedV2(options?: Partial<V2DialOptions>): Promise<RawV2Agent>;
  /** The data of a GraphQL operation. Throws where it has errors. */
  ask(query: string, variables?: JsonObject): Promise<JsonObject>;
  agent(ref: string): Promise<SeenAgent | null>;
  /** The agent's events, oldest first, untrusted ones too. */
  events(ref: string): Promise<SeenEvent[]>;
  /** The event of this message, once it is there. */
  event(ref: string, messageId: string): Promise<SeenEvent>;
  /** Sends a command; its id. */
  send(ref: string, input?: JsonObject): Promise<string>;
  message(id: string): Promise<SeenMessage>;
  untilStatus(id: string, status: string, timeoutMs?: number): Promise<SeenMessage>;
  /** How many frames have been refused with this code. */
  refused(code: string): Promise<number>;
  /** The value of a line of /metrics; of a bare name, the sum over its labels. */
  metric(line: string): Promise<number>;
  /** Ends the agents of a test. */
  endAgents(): void;
  stop(): Promise<void>;
}

export async function startStage(options: TestGatewayOptions = {}): Promise<Stage> {
  const gateway = await startTestGateway(options);
  const agents: { terminate(): void }[] = [];
  const now = options.clock ? { now: () => options.clock?.now() ?? 0 } : {};
  const dialOptions = (own: Partial<DialOptions> = {}) => ({ url: gateway.agentUrl, ...now, ...own });
  const kept = <Agent extends RawAgent | RawV2Agent>(agent: Agent) => {
    agents.push(agent);
    return agent;
  };

  async function pins(): Promise<string[]> {
    const { current, next } = keysSchema.parse(await ask('{ gateway { keys { current next } } }')).gateway.keys;
    return next === null ? [current] : [current, next];
  }

  const dialV2Options = async (own: Partial<V2DialOptions> = {}) => ({
    ...{ url: gateway.agentUrl, pins: own.pins ?? (await pins()) },
    ...now,
    ...own,
  });

  async function ask(query: string, variables: JsonObject = {}): Promise<JsonObject> {
    const response = await gateway.fetch('/graphql', {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ query, variables }),
    });
    const { data, errors } = answerSchema.parse(await response.json());
    if (!data || errors) throw new Error(`GraphQL answers ${JSON.stringify(errors)}`);
    return data;
  }

  async function events(ref: string): Promise<SeenEvent[]> {
    const data = await ask(
      `query ($ref: ID!) { events(agentId: $ref, includeUntrusted: true, last: 500) { nodes { ${eventFields} } } }`,
      { ref },
    );
    return z.object({ events: z.object({ nodes: z.array(eventSchema) }) }).parse(data).events.nodes;
  }

  async function message(id: string): Promise<SeenMessage> {
    const data = await ask('query ($id: ID!) { message(id: $id) { id status attempts failure } }', { id });
    return messageSchema.parse(data.message);
  }

  async function metric(line: string): Promise<number> {
    const text = await (await gateway.fetch('/metrics')).text();
    const samples = text.split('\n').filter((sample) => sample.startsWith(`${line} `) || sample.startsWith(`${line}{`));
    return samples.reduce((sum, sample) => sum + Number(sample.slice(sample.lastIndexOf(' ') + 1)), 0);
  }

  return {
    gateway,
    dial: async (own) => kept(await RawAgent.dial(dialOptions(own))),
    authenticated: async (own) => kept(await RawAgent.authenticated(dialOptions(own))),
    registered: async (own) => kept(await RawAgent.registered({ ...dialOptions(own), ...own })),
    dialV2: async (own) => kept(await RawV2Agent.dial(await dialV2Options(own))),
    connectedV2: async (own) => kept(await RawV2Agent.connected(await dialV2Options(own))),
    ask,
    async agent(ref) {
      const data = await ask(
        `query ($ref: ID!) { agent(agentId: $ref) {
          uid orgId connected enrollment keyFingerprint pendingKeyFingerprint session { connectedAt } } }`,
        { ref },
      );
      return agentSchema.nullable().parse(data.agent);
    },
    events,
    event: (ref, messageId) =>
      eventually(async () => (await events(ref)).find((event) => event.messageId === messageId)),
    async send(ref, input = {}) {
      const data = await ask('mutation ($input: SendMessageInput!) { sendMessage(input: $input) { message { id } } }', {
        input: { agentId: ref, channel: 'POLICIES', payload: { op: 'reload' }, ...input },
      });
      return z.object({ sendMessage: z.object({ message: z.object({ id: z.string() }) }) }).parse(data).sendMessage
        .message.id;
    },
    message,
    untilStatus: (id, status, timeoutMs) =>
      eventually(async () => {
        const current = await message(id);
        return current.status === status ? current : null;
      }, timeoutMs),
    refused: (code) => metric(`aegis_frames_refused_total{reason="${code}"}`),
    metric,
    endAgents() {
      for (const agent of agents.splice(0)) agent.terminate();
    },
    async stop() {
      for (const agent of agents.splice(0)) agent.terminate();
      await gateway.stop();
    },
  };
}
