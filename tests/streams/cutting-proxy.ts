import { connect, createServer, type Socket } from 'node:net';

/** A proxy before a gateway that drops connections without a word, as networks do. */
export interface CuttingProxy {
  /** `http://127.0.0.1:<port>` */
  readonly url: string;
  /** Connections so far, refused ones among them. */
  readonly dialled: number;
  /** Drops every connection that there is. */
  cut(): void;
  /** Drops new ones at once, or lets them through again. */
  refuse(isRefusing: boolean): void;
  close(): Promise<void>;
}

export async function startCuttingProxy(targetUrl: string): Promise<CuttingProxy> {
  const { hostname, port } = new URL(targetUrl);
  const sockets = new Set<Socket>();
  let dialled = 0;
  let isRefusing = false;
  const cut = () => {
    for (const socket of sockets) socket.destroy();
  };

  const server = createServer((client) => {
    dialled++;
    if (isRefusing) {
      client.on('error', () => {});
      client.destroy();
      return;
    }
    const upstream = connect({ host: hostname, port: Number(port) });
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
      socket.pipe(other);
    }
  });
  const ownPort = await new Promise<number>((resolve) => {
    server.listen(0, '127.0.0.1', () => {
      const address = server.address();
      resolve(typeof address === 'object' && address ? address.port : 0);
    });
  });
  return {
    url: `http://127.0.0.1:${ownPort}`,
    get dialled() {
      return dialled;
    },
    cut,
    refuse(refusing) {
      isRefusing = refusing;
    },
    async close() {
      cut();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}
