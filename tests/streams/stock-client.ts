import { createClient } from 'graphql-ws';
import { WebSocket } from 'ws';

interface Anomaly {
  readonly cursor: string;
  readonly messageId: string;
}

/** The lines of docs/GRAPHQL.md with which a stock client goes on where it left off, word for word; a test holds the two together. */
export async function followAnomalies(
  url: string,
  token: string,
  show: (anomaly: Anomaly) => void,
  fail: (reason: unknown) => void,
): Promise<() => Promise<void>> {
  // <docs>
  const client = createClient({
    url,
    webSocketImpl: WebSocket,
    connectionParams: { authorization: `Bearer ${token}` },
    retryAttempts: Number.POSITIVE_INFINITY,
    shouldRetry: () => true,
    retryWait: (retries) =>
      new Promise((resolve) => setTimeout(resolve, Math.random() * Math.min(30_000, 500 * 2 ** retries))),
  });

  let after: string | undefined;
  for await (const { data } of client.iterate<{ eventCursor: string }>({ query: '{ eventCursor }' }))
    after = data?.eventCursor;

  const request = {
    query: 'subscription ($after: String) { anomalies(after: $after) { cursor messageId } }',
    variables: {
      // graphql-ws writes the request anew for each connection, and so asks for the cursor anew.
      get after() {
        return after;
      },
    },
  };
  const stop = client.subscribe<{ anomalies: Anomaly }>(request, {
    next({ data }) {
      if (!data) return;
      after = data.anomalies.cursor;
      show(data.anomalies);
    },
    error: fail,
    complete() {},
  });
  // </docs>
  return async () => {
    stop();
    await client.dispose();
  };
}
