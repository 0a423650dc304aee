import type { Clock } from '../clock.ts';
import type { Logger } from '../telemetry/log.ts';
import { createExchange } from './exchange.ts';
import { restartDelayMs } from './restart-delay.ts';
import type { ToPrimary } from './talk.ts';
import type { Worker } from './worker.ts';

/** The workers of one machine: so many run, whatever becomes of one. */
export interface Crew {
  /**
   * Starts the first alone, which migrates, makes keys and tells what is wrong, and then the others. Gives null once each of
   * them serves or has failed, which is mended later; or the exit code of the first where that could not serve.
   */
  start(): Promise<number | null>;
  /**
   * Replaces each worker once, one after the other: the new one serves before the old one leaves. Where a new one does not come
   * up, nothing more is replaced. Asked for meanwhile, it is done once more; before the start is over it is not done at all.
   */
  roll(): Promise<void>;
  /** Has all read certificates and keys again. */
  reload(): void;
  /** Has all stop; tells whether all did as they should. */
  stop(): Promise<boolean>;
  /** Ends all at once. */
  kill(): void;
}

export interface CrewDeps {
  readonly size: number;
  readonly launch: (
    place: { readonly number: number; readonly generation: number },
    onMessage: (worker: Worker, message: ToPrimary) => void,
  ) => Worker;
  readonly clock: Clock;
  readonly random: () => number;
  readonly log: Logger;
}

interface Slot {
  readonly number: number;
  current: Worker | null;
  starting: Worker | null;
  failures: number;
  isRolling: boolean;
  cancelRestart: () => void;
}

/** A migration may take its time; a worker that hangs while the others serve does no harm. */
const startTimeoutMs = 120_000;
/** A worker's own limit is below. */
const retireTimeoutMs = 12_000;
/** Whoever lived so long did not fail at its start. */
const provenMs = 60_000;

export function createCrew({ size, launch, clock, random, log }: CrewDeps): Crew {
  const slots = Array.from({ length: size }, (_, index): Slot => {
    return {
      ...{ number: index + 1, current: null, starting: null, failures: 0, isRolling: false },
      cancelRestart: () => {},
    };
  });
  const exchange = createExchange(clock);
  const alive = new Set<Worker>();
  const retiring = new Set<Worker>();
  let generation = 0;
  let isStarted = false;
  let isStopping = false;
  let isRolling = false;
  let isAskedAgain = false;

  function take(worker: Worker, message: ToPrimary): void {
    if (message.say === 'leaving') void retire(worker);
    else exchange.take(worker, message);
  }

  /** Null where it does not come up. */
  async function bring(slot: Slot): Promise<Worker | null> {
    const worker = launch({ number: slot.number, generation: ++generation }, take);
    alive.add(worker);
    slot.starting = worker;
    const cancel = clock.after(startTimeoutMs, worker.kill);
    const isReady = await worker.ready;
    cancel();
    if (slot.starting === worker) slot.starting = null;
    if (!isReady) {
      alive.delete(worker);
      return null;
    }
    slot.current = worker;
    const leave = exchange.join(worker);
    void worker.ended.then(({ code, signal, livedMs }) => {
      alive.delete(worker);
      leave();
      if (slot.current !== worker) return;
      slot.current = null;
      if (isStopping) return;
      log.error({ worker: slot.number, pid: worker.pid, code, signal }, 'a worker ended and is started again');
      if (livedMs >= provenMs) slot.failures = 0;
      restartLater(slot);
    });
    log.info({ worker: slot.number, pid: worker.pid }, 'a worker serves');
    return worker;
  }

  function restartLater(slot: Slot): void {
    if (isStopping || slot.isRolling) return;
    slot.cancelRestart = clock.after(restartDelayMs(slot.failures++, random), () => void restart(slot));
  }

  async function restart(slot: Slot): Promise<void> {
    if ((await bring(slot)) || isStopping || slot.isRolling) return;
    log.error({ worker: slot.number, failures: slot.failures }, 'a worker could not be started');
    restartLater(slot);
  }

  async function retire(worker: Worker): Promise<void> {
    if (retiring.has(worker)) return;
    retiring.add(worker);
    worker.send({ say: 'retire' });
    const cancel = clock.after(retireTimeoutMs, () => {
      log.error({ worker: worker.number, pid: worker.pid }, 'a worker did not leave and is killed');
      worker.kill();
    });
    await worker.ended;
    cancel();
    retiring.delete(worker);
  }

  /** Whether a new worker has taken the place. */
  async function replace(slot: Slot): Promise<boolean> {
    slot.isRolling = true;
    slot.cancelRestart();
    // It may have begun on the code of before.
    slot.starting?.kill();
    await slot.starting?.ended;
    const old = slot.current;
    const fresh = await bring(slot);
    if (fresh && old) await retire(old);
    slot.isRolling = false;
    // One that died meanwhile was left to the roll.
    if (!slot.current) restartLater(slot);
    return fresh !== null;
  }

  async function rollOnce(): Promise<void> {
    log.info('the workers are replaced, one after the other');
    for (const [index, slot] of slots.entries()) {
      const isReplaced = await replace(slot);
      if (isStopping) return;
      if (!isReplaced) {
        log.error(
          { replaced: index, of: size },
          'A NEW WORKER DID NOT COME UP: no further one is replaced, and those that run go on',
        );
        return;
      }
    }
    log.info({ replaced: size }, 'every worker has been replaced');
  }

  return {
    async start() {
      const [first, ...others] = slots;
      if (!first) return null;
      const starting = bring(first);
      const worker = first.starting;
      if (!(await starting)) return (await worker?.ended)?.code ?? 1;
      await Promise.all(others.map(restart));
      isStarted = true;
      return null;
    },
    async roll() {
      isAskedAgain = isStarted;
      if (isRolling) return;
      isRolling = true;
      while (isAskedAgain && !isStopping) {
        isAskedAgain = false;
        await rollOnce();
      }
      isRolling = false;
    },
    reload() {
      for (const worker of alive) if (worker.isReady) worker.send({ say: 'reload' });
    },
    async stop() {
      isStopping = true;
      for (const slot of slots) slot.cancelRestart();
      const ends = [...alive].map(async (worker) => {
        // Nobody is served by one that starts, and what it has begun in the database is undone.
        if (!worker.isReady) worker.kill();
        else worker.send({ say: 'stop' });
        return (await worker.ended).code === 0 || !worker.isReady;
      });
      return (await Promise.all(ends)).every(Boolean);
    },
    kill() {
      for (const worker of alive) worker.kill();
    },
  };
}
