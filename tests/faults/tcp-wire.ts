import { once } from 'node:events';
import { createConnection, createServer, type Socket } from 'node:net';
import { performance } from 'node:perf_hooks';
import { setTimeout as pause } from 'node:timers/promises';
import { type Hold, preciseNowMs } from './history.ts';

/** What stands between two processes and carries their connections, until it is told to do badly. */
export interface TcpWire {
  /** Where to dial, on 127.0.0.1. */
  readonly port: number;
  /** Connections that reach both ends. */
  readonly connections: number;
  /** When it was held, by `preciseNowMs`; a hold that goes on ends in the far future. */
  readonly holds: readonly Hold[];
  /** From now on each byte takes so long, both ways; 0: no time. */
  delay(delayMs: number): void;
  /** From now on nothing comes through, not even that a connection is begun or over; nobody is told. */
  hold(): void;
  /** Takes `hold` back: what was under way arrives. */
  release(): void;
  /** Breaks every connection, with a reset to both ends. */
  reset(): void;
  /** Closes every connection at one end alone; the other one keeps a socket that is never answered again. */
  strand(kept: 'dialling' | 'dialled'): void;
  close(): Promise<void>;
}

/** One connection, from the end that dialled it. */
interface Carried {
  readonly near: Socket;
  far: Socket | null;
  /** One end is gone, and the other is not told. */
  isStranded: boolean;
}

const redialMs = 50;
const dialTimeoutMs = 2_000;
const maxQueuedBytes = 256 * 1024;

/**
 * Begins to carry connections to the first of `targets()`, ports of 127.0.0.1, that answers. Where none does, `whenNoneAnswers`
 * says whether who dials is refused, as by a host without the process, or waits, as at a load balancer.
 */
export async function startTcpWire(options: {
  readonly targets: () => readonly number[];
  readonly whenNoneAnswers: 'refuse' | 'wait';
}): Promise<TcpWire> {
  const carried = new Set<Carried>();
  const holds: { fromMs: number; untilMs: number }[] = [];
  let delayMs = 0;
  /** Resolves when the wire is released; null: it is not held. */
  let held: { readonly over: Promise<void>; readonly end: () => void } | null = null;

  const server = createServer({ allowHalfOpen: true, pauseOnConnect: true, noDelay: true }, (near) => {
    const connection: Carried = { near, far: null, isStranded: false };
    carried.add(connection);
    near.on('error', () => {});
    near.on('close', () => {
      if (!connection.far) carried.delete(connection);
    });
    void connect(connection);
  });

  async function connect(connection: Carried): Promise<void> {
    const { near } = connection;
    while (!near.destroyed) {
      if (held) await held.over;
      for (const port of options.targets()) {
        const far = await dial(port);
        if (!far) continue;
        if (near.destroyed) return void far.destroy();
        connection.far = far;
        carry(connection, near, far);
        carry(connection, far, near);
        return;
      }
      if (options.whenNoneAnswers === 'refuse') near.resetAndDestroy();
      await pause(redialMs);
    }
  }

  /** Passes on what comes from one end, in time, and that it has ended. */
  function carry(connection: Carried, from: Socket, to: Socket): void {
    const isCut = () => to.destroyed || connection.isStranded;
    const lane = startLane({ from, to, isCut, delayMs: () => delayMs, held: () => held?.over ?? null });
    from.on('data', lane.add);
    from.on('end', () => lane.add('end'));
    from.on('error', () => {});
    from.on('close', async (hadError) => {
      if (held) await held.over;
      if (connection.isStranded) return;
      if (hadError) to.resetAndDestroy();
      else if (to.writableEnded) to.destroySoon();
      else lane.add('end');
      if (to.destroyed) carried.delete(connection);
    });
    from.resume();
  }

  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  if (typeof address !== 'object' || !address) throw new Error('the wire has no port');

  const release = () => {
    const last = holds.at(-1);
    if (held && last) last.untilMs = preciseNowMs();
    held?.end();
    held = null;
  };
  const reset = () => {
    for (const connection of carried) {
      carried.delete(connection);
      connection.near.resetAndDestroy();
      connection.far?.resetAndDestroy();
    }
  };
  return {
    port: address.port,
    get connections() {
      return [...carried].filter(({ far, isStranded }) => far !== null && !isStranded).length;
    },
    delay(ms) {
      delayMs = ms;
    },
    holds,
    hold() {
      if (held) return;
      held = withEnd();
      holds.push({ fromMs: preciseNowMs(), untilMs: Number.POSITIVE_INFINITY });
    },
    release,
    reset,
    strand(kept) {
      for (const connection of carried) {
        if (!connection.far || connection.isStranded) continue;
        connection.isStranded = true;
        const [lost, left] =
          kept === 'dialling' ? [connection.far, connection.near] : [connection.near, connection.far];
        lost.resetAndDestroy();
        left.on('close', () => carried.delete(connection));
        // Whoever closes it is not answered either.
        left.on('end', () => left.destroy());
      }
    },
    async close() {
      server.close();
      release();
      reset();
      await once(server, 'close');
    },
  };
}

/** One way of a connection: what was added comes out at the other end, in its order, when it is due. */
function startLane(lane: {
  readonly from: Socket;
  readonly to: Socket;
  readonly isCut: () => boolean;
  readonly delayMs: () => number;
  /** While the wire is held: resolves when it is released. */
  readonly held: () => Promise<void> | null;
}): { add(chunk: Buffer | 'end'): void } {
  const { from, to, isCut } = lane;
  const queue: { readonly chunk: Buffer | 'end'; readonly dueAtMs: number }[] = [];
  let queuedBytes = 0;
  let isWriting = false;

  async function passOn(chunk: Buffer | 'end', dueAtMs: number): Promise<void> {
    const earlyMs = dueAtMs - performance.now();
    if (earlyMs > 0) await pause(earlyMs);
    await lane.held();
    queuedBytes -= chunk.length;
    if (isCut()) return;
    if (chunk === 'end') to.end();
    else if (!to.write(chunk)) await Promise.race([once(to, 'drain'), once(to, 'close')]).catch(() => {});
    if (queuedBytes <= maxQueuedBytes) from.resume();
  }

  async function passAllOn(): Promise<void> {
    isWriting = true;
    for (let next = queue.shift(); next; next = queue.shift()) await passOn(next.chunk, next.dueAtMs);
    isWriting = false;
  }

  return {
    add(chunk) {
      queue.push({ chunk, dueAtMs: performance.now() + lane.delayMs() });
      queuedBytes += chunk.length;
      if (queuedBytes > maxQueuedBytes) from.pause();
      if (!isWriting) void passAllOn();
    },
  };
}

function withEnd(): { readonly over: Promise<void>; readonly end: () => void } {
  let end = () => {};
  const over = new Promise<void>((resolve) => {
    end = resolve;
  });
  return { over, end };
}

function dial(port: number): Promise<Socket | null> {
  return new Promise((resolve) => {
    const socket = createConnection({ host: '127.0.0.1', port, allowHalfOpen: true, noDelay: true });
    const give = (result: Socket | null) => {
      clearTimeout(late);
      socket.off('error', refused);
      if (!result) socket.destroy();
      resolve(result);
    };
    const refused = () => give(null);
    const late = setTimeout(refused, dialTimeoutMs);
    socket.once('error', refused);
    socket.once('connect', () => {
      socket.on('error', () => {});
      give(socket);
    });
  });
}
