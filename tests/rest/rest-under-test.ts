import { z } from 'zod';
import { startTestGateway } from '../support/gateway.ts';
import { type Call, restCaller } from './rest-caller.ts';

export interface RestUnderTest {
  readonly url: string;
  readonly token: string;
  /** Where agents connect. */
  readonly agentUrl: string;
  readonly call: Call;
  /** The data of a GraphQL operation, for what REST has no words for. Throws what it answers instead of data. */
  graphql(document: string, variables: Readonly<Record<string, unknown>>): Promise<Readonly<Record<string, unknown>>>;
  close(): Promise<void>;
}

const resultSchema = z.object({ data: z.record(z.string(), z.unknown()) });

/** Starts a gateway with these variables of the environment, to be called over REST. */
export async function startRest(env: Readonly<Record<string, string>> = {}): Promise<RestUnderTest> {
  const gateway = await startTestGateway({ env });
  const call = restCaller(gateway.url, gateway.token);
  return {
    url: gateway.url,
    token: gateway.token,
    agentUrl: gateway.agentUrl,
    call,
    async graphql(query, variables) {
      const headers = { 'content-type': 'application/json' };
      const answer = await call('POST', '/graphql', { body: { query, variables }, headers });
      const parsed = resultSchema.safeParse(answer.json);
      if (!parsed.success || answer.text.includes('"errors"')) throw new Error(`GraphQL answers ${answer.text}`);
      return parsed.data.data;
    },
    close: () => gateway.stop(),
  };
}
