import { type Client, createClient, type FormattedExecutionResult } from 'graphql-ws';
import { WebSocket } from 'ws';
import { z } from 'zod';
import { startV1Agent, type V1Agent, type V1AgentOptions } from '../../src/agent-client/index.ts';
import { nativeCrypto } from '../../src/agent-gateway/crypto/native.ts';
import { eventually } from '../support/eventually.ts';
import { startTestGateway, type TestGateway, type TestGatewayOptions } from '../support/gateway.ts';

/** A result as graphql-ws brings it. */
type SocketResult = FormattedExecutionResult<Record<string, unknown>, unknown>;

export const answerSchema = z.object({
  data: z.record(z.string(), z.unknown()).nullish(),
  errors: z
    .array(
      z.object({
        message: z.string(),
        path: z.array(z.union([z.string(), z.number()])).optional(),
        extensions: z.object({ code: z.string() }),
      }),
    )
    .optional(),
});
export type Answer = z.infer<typeof answerSchema>;

export interface HttpAnswer {
  readonly status: number;
  readonly headers: Headers;
  readonly text: string;
  readonly answer: Answer;
}

/** A gateway with agents on one side and a consumer on the other. */
export interface ConsumerStage {
  readonly gateway: TestGateway;
  /** Posts to GraphQL; the answer must be one of GraphQL's. */
  post(
    body: unknown,
    init?: { readonly headers?: Record<string, string>; readonly authorization?: string | null },
  ): Promise<HttpAnswer>;
  /** The data of an operation. Throws where it has errors. */
  ask(query: string, variables?: Readonly<Record<string, unknown>>): Promise<Record<string, unknown>>;
  /** The codes of an operation's errors. */
  codesOf(query: string, variables?: Readonly<Record<string, unknown>>): Promise<string[]>;
  connect(agentId: string, options?: Partial<V1AgentOptions>): Promise<V1Agent>;
  /** A stock graphql-ws client that never reconnects. */
  socket(connectionParams?: Record<string, unknown>): Client;
  /** Results of a subscription over graphql-ws. Return it when done. */
  subscribe(query: string, variables?: Readonly<Record<string, unknown>>): AsyncIterableIterator<SocketResult>;
  /** Resolves when so many subscriptions of events are live. */
  untilStreaming(count: number): Promise<void>;
  stop(): Promise<void>;
}

export async function startConsumerStage(options: TestGatewayOptions = {}): Promise<ConsumerStage> {
  const gateway = await startTestGateway(options);
  const agents: V1Agent[] = [];
  const clients: Client[] = [];
  let shared: Client | null = null;

  async function post(
    body: unknown,
    {
      headers = {},
      authorization,
    }: { readonly headers?: Record<string, string>; readonly authorization?: string | null } = {},
  ): Promise<HttpAnswer> {
    const response = await gateway.fetch('/graphql', {
      method: 'POST',
      headers: { 'content-type': 'application/json', ...headers },
      body: typeof body === 'string' ? body : JSON.stringify(body),
      ...(authorization === undefined ? {} : { authorization }),
    });
    const text = await response.text();
    return { status: response.status, headers: response.headers, text, answer: answerSchema.parse(JSON.parse(text)) };
  }

  async function ask(query: string, variables?: Readonly<Record<string, unknown>>): Promise<Record<string, unknown>> {
    const { text, answer } = await post({ query, variables });
    if (answer.errors || !answer.data) throw new Error(`GraphQL answers ${text}`);
    return answer.data;
  }

  function socket(connectionParams: Record<string, unknown> = { authorization: `Bearer ${gateway.token}` }): Client {
    const client = createClient({
      url: gateway.subscriptionUrl,
      webSocketImpl: WebSocket,
      connectionParams,
      retryAttempts: 0,
    });
    clients.push(client);
    return client;
  }

  return {
    gateway,
    post,
    ask,
    socket,
    async codesOf(query, variables) {
      const { answer } = await post({ query, variables });
      return (answer.errors ?? []).map((error) => error.extensions.code);
    },
    async connect(agentId, agentOptions = {}) {
      const agent = startV1Agent({ url: gateway.agentUrl, agentId, suite: nativeCrypto, ...agentOptions });
      agents.push(agent);
      await agent.ready();
      return agent;
    },
    subscribe(query, variables) {
      shared ??= socket();
      return shared.iterate({ query, variables: { ...variables } });
    },
    async untilStreaming(count) {
      await eventually(async () => (await streaming(gateway)) === count);
    },
    async stop() {
      await Promise.all(clients.map((client) => client.dispose()));
      await Promise.all(agents.map((agent) => agent.close()));
      await gateway.stop();
    },
  };
}

async function streaming(gateway: TestGateway): Promise<number> {
  const text = await (await gateway.fetch('/metrics')).text();
  return Number(/^aegis_subscriptions (\d+)/m.exec(text)?.[1]);
}

/** The next data of a stream. Throws where it ends, fails or says nothing for `timeoutMs`. */
export async function nextData(
  results: AsyncIterator<SocketResult>,
  timeoutMs = 5_000,
): Promise<Record<string, unknown>> {
  const { data } = await nextResult(results, timeoutMs);
  if (!data) throw new Error('the stream brought no data');
  return data;
}

export async function nextResult(results: AsyncIterator<SocketResult>, timeoutMs = 5_000): Promise<SocketResult> {
  let timer: NodeJS.Timeout | undefined;
  const timeout = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => reject(new Error(`nothing came for ${timeoutMs} ms`)), timeoutMs);
  });
  try {
    const { done, value } = await Promise.race([results.next(), timeout]);
    if (done) throw new Error('the stream has ended');
    return value;
  } finally {
    clearTimeout(timer);
  }
}
