import { once } from 'node:events';
import { Agent, type IncomingMessage, request } from 'node:http';

/** What is asked over and over. */
export interface AskedRequest {
  readonly method: 'GET' | 'POST';
  readonly path: string;
  readonly token: string;
  /** JSON; `number` counts the requests. */
  readonly body?: (number: number) => object;
}

/** Asks so often, so many at once over connections that are kept. Rejects where one is refused. */
export async function askAll(
  origin: string,
  { method, path, token, body }: AskedRequest,
  pace: { readonly count: number; readonly atOnce: number },
): Promise<void> {
  const agent = new Agent({ keepAlive: true, noDelay: true });
  const headers = { accept: 'application/json', authorization: `Bearer ${token}` };
  let asked = 0;

  async function ask(): Promise<void> {
    const text = body && JSON.stringify(body(asked));
    asked++;
    const length =
      text === undefined ? {} : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) };
    const outgoing = request(origin + path, { method, agent, headers: { ...headers, ...length } });
    outgoing.end(text);
    const [response]: IncomingMessage[] = await once(outgoing, 'response');
    if (!response) throw new Error('there is no answer');
    const chunks: Buffer[] = [];
    response.on('data', (chunk) => chunks.push(chunk));
    await once(response, 'end');
    const answer = Buffer.concat(chunks).toString();
    if (response.statusCode !== 200 || answer.includes('"errors"'))
      throw new Error(`the gateway answered ${response.statusCode}: ${answer.slice(0, 300)}`);
  }

  async function askOn(): Promise<void> {
    while (asked < pace.count) await ask();
  }

  try {
    await Promise.all(Array.from({ length: pace.atOnce }, askOn));
  } finally {
    agent.destroy();
  }
}
