import { createConnection, createServer, type Socket } from 'node:net';

/** A proxy before a Postgres that can lose an answer: what was asked for is done, and the client never hears of it. */
export interface CuttingProxy {
  readonly databaseUrl: string;
  /** Cuts the connection instead of passing on the next answer that holds `text`, such as `UPDATE 1`. Resolves then. */
  cutAnswer(text: string): Promise<void>;
  /** From now on takes whatever is sent, and new connections, and passes nothing on: a host that is stopped, or behind a wall. */
  stall(): void;
  /** From now on resets new connections, as a proxy before a Postgres that is away. */
  refuse(): void;
  /** Passes on what came meanwhile, and everything from then on. */
  goOn(): void;
  /** Ends every connection, as a Postgres that shuts down does. */
  cutAll(): void;
  close(): Promise<void>;
}

export async function startCuttingProxy(databaseUrl: string): Promise<CuttingProxy> {
  const target = new URL(databaseUrl);
  const sockets = new Set<Socket>();
  let isStalled = false;
  let isRefusing = false;
  const held: (() => void)[] = [];
  const pass = (deliver: () => void) => void (isStalled ? held.push(deliver) : deliver());
  let cut: { readonly text: string; readonly done: () => void } | null = null;

  const server = createServer((client) => {
    client.on('error', () => client.destroy());
    if (isRefusing) return void client.resetAndDestroy();
    const upstream = createConnection({ host: target.hostname, port: Number(target.port || 5432) });
    for (const [socket, other] of [
      [client, upstream],
      [upstream, client],
    ] as const) {
      sockets.add(socket);
      socket.on('error', () => socket.destroy());
      socket.on('close', () => {
        sockets.delete(socket);
        other.destroy();
      });
    }
    client.on('data', (chunk) => pass(() => upstream.write(chunk)));
    upstream.on('data', (chunk) => {
      if (cut && chunk.includes(cut.text)) {
        cut.done();
        cut = null;
        client.resetAndDestroy();
      } else {
        pass(() => client.write(chunk));
      }
    });
  });
  const port = await new Promise<number>((resolve) => {
    server.listen(0, '127.0.0.1', () => {
      const address = server.address();
      resolve(typeof address === 'object' && address ? address.port : 0);
    });
  });
  const url = new URL(databaseUrl);
  url.host = `127.0.0.1:${port}`;
  return {
    databaseUrl: url.href,
    cutAnswer: (text) =>
      new Promise((done) => {
        cut = { text, done };
      }),
    stall() {
      isStalled = true;
    },
    refuse() {
      isRefusing = true;
    },
    goOn() {
      isStalled = false;
      isRefusing = false;
      for (const deliver of held.splice(0)) deliver();
    },
    cutAll() {
      for (const socket of sockets) socket.destroy();
    },
    async close() {
      for (const socket of sockets) socket.destroy();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}
