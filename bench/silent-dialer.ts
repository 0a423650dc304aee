import { createConnection, type Socket } from 'node:net';
import { z } from 'zod';

// The sockets of `silent-sockets.ts`, in a process of their own: one may not have so many. Told once what to do; tells how
// many were upgraded and how many refused when all are connected, and once more when it is told to stop.

const order = z.object({
  host: z.string(),
  port: z.int(),
  sockets: z.int(),
  addresses: z.int(),
  attack: z.object({
    /** What each socket says at once. */
    atOnce: z.string(),
    /** And when it was upgraded. */
    afterUpgrade: z.string().optional(),
    /** And one character a second. */
    drip: z.string().optional(),
  }),
});
export type Order = z.infer<typeof order>;
export type Attack = Order['attack'];

const dialsAtOnce = 500;
const counts = { upgraded: 0, refused: 0 };

process.once('message', async (message) => {
  const { attack, ...wanted } = order.parse(message);
  const open = await dialAll(wanted, attack);
  let second = 0;
  setInterval(() => {
    const character = attack.drip?.charAt(second++) ?? '';
    if (character !== '') for (const socket of open) if (!socket.destroyed) socket.write(character);
  }, 1_000);
  process.once('message', () => {
    process.send?.(counts, undefined, undefined, () => process.exit(0));
  });
  process.send?.(counts);
});

async function dialAll({ host, port, sockets, addresses }: Omit<Order, 'attack'>, attack: Attack): Promise<Socket[]> {
  const open: Socket[] = [];
  while (open.length < sockets) {
    const batch = Array.from({ length: Math.min(dialsAtOnce, sockets - open.length) }, (_, index) =>
      createConnection({ host, port, localAddress: `127.0.${1 + (index % addresses)}.1` }),
    );
    await Promise.all(batch.map((socket) => dialled(socket, attack)));
    open.push(...batch);
  }
  return open;
}

function dialled(socket: Socket, { atOnce, afterUpgrade }: Attack): Promise<void> {
  socket.once('data', (data) => {
    const isUpgraded = data.includes(' 101 ');
    counts[isUpgraded ? 'upgraded' : 'refused']++;
    if (isUpgraded && afterUpgrade) socket.write(Buffer.from(afterUpgrade, 'latin1'));
  });
  if (atOnce !== '') socket.write(atOnce);
  return new Promise((resolve) => {
    socket.once('connect', resolve);
    socket.once('error', () => resolve());
  });
}
