import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createLog } from '../../src/telemetry/log.ts';
import { type Crew, createCrew } from '../../src/workers/crew.ts';
import { startWorker, type Worker } from '../../src/workers/worker.ts';
import { eventually } from '../support/eventually.ts';

/** A program that a worker may be: what it does once it is told to begin, and at all else that it is told. */
const program = (atBegin: string, atEnd = 'process.exit(0)') => `
  process.on('message', ({ say, id }) => {
    if (say === 'begin') { ${atBegin} }
    else if (say === 'retire' || say === 'stop') { ${atEnd} }
  });
  process.send({ say: 'hello' });`;
const serves = program(`process.send({ say: 'ready' })`);
const fails = program('process.exit(3)');
const hangs = program('');

let folder: string;
let crew: Crew | null;
let begun: Worker[];
let lines: { msg: string; [field: string]: unknown }[];
/** What was waited for, in milliseconds. */
let waits: number[];
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'aegis-crew-'));
  [crew, begun, lines, waits] = [null, [], [], []];
  release(serves);
});
afterEach(async () => {
  await crew?.stop();
  rmSync(folder, { recursive: true, force: true });
});

const entry = () => join(folder, 'worker.mjs');
const release = (text: string) => writeFileSync(entry(), text);

/** Its restarts come at once; its limits, 12 s and more, never do unless `hasty` says so. */
function start(size: number, hasty: (delayMs: number) => boolean = () => false): Crew {
  const write = (line: string) => lines.push(JSON.parse(line));
  const assignment = { instanceId: 'one', family: 'one', adminToken: null, ticketKeys: '' };
  crew = createCrew({
    ...{ size, random: () => 0.5, log: createLog('info', { write }) },
    clock: {
      now: () => 0,
      every: () => () => {},
      after(delayMs, task) {
        waits.push(delayMs);
        if (delayMs >= 12_000 && !hasty(delayMs)) return () => {};
        const timer = setTimeout(task, 0);
        return () => clearTimeout(timer);
      },
    },
    launch({ number }, onMessage) {
      const worker = startWorker({ entry: entry(), fd: 0, assignment: { ...assignment, number } }, onMessage);
      begun.push(worker);
      return worker;
    },
  });
  return crew;
}

const logged = (text: string) => lines.filter(({ msg }) => msg.includes(text));
const numbers = () => begun.map(({ number }) => number);

describe('a crew', () => {
  it('begins with one, then all the others', async () => {
    const starting = start(3).start();
    expect(numbers()).toEqual([1]);
    expect(await starting).toBeNull();
    expect(numbers()).toEqual([1, 2, 3]);
    expect(logged('a worker serves')).toHaveLength(3);
  });

  it('tells by which code the first one failed, and begins no other', async () => {
    release(fails);
    expect(await start(3).start()).toBe(3);
    expect(numbers()).toEqual([1]);
  });

  it('begins again whoever died, and waits twice as long each time that it fails', async () => {
    await start(2).start();
    release(fails);
    begun[1]?.kill();
    await eventually(() => logged('a worker could not be started').length >= 3);
    release(serves);
    await eventually(() => logged('a worker serves').length === 3);
    expect(logged('a worker ended')).toMatchObject([{ level: 'error', worker: 2, signal: 'SIGKILL' }]);
    expect(waits.filter((delayMs) => delayMs < 12_000).slice(0, 4)).toEqual([250, 500, 1_000, 2_000]);
    expect(begun[0]?.isReady).toBe(true);
  });

  it('puts another in the place of one that wants to leave', async () => {
    release(program(`process.on('SIGTERM', () => process.send({ say: 'leaving' })); process.send({ say: 'ready' })`));
    await start(1).start();
    process.kill(begun[0]?.pid ?? 0, 'SIGTERM');
    expect(await begun[0]?.ended).toMatchObject({ code: 0 });
    await eventually(() => logged('a worker serves').length === 2);
  });
});

describe('a roll', () => {
  it('has each new worker serve before the old one leaves, in their order', async () => {
    await start(2).start();
    await crew?.roll();
    expect(numbers()).toEqual([1, 2, 1, 2]);
    const [first, second, third, fourth] = begun;
    expect([await first?.ended, await second?.ended]).toMatchObject([{ code: 0 }, { code: 0 }]);
    expect([third?.isReady, fourth?.isReady]).toEqual([true, true]);
    expect(logged('a worker ended')).toEqual([]);
    expect(logged('every worker has been replaced')).toHaveLength(1);
  });

  it('is done once more where it is asked for meanwhile, however often', async () => {
    await start(2).start();
    const rolling = crew?.roll();
    await crew?.roll();
    await crew?.roll();
    await rolling;
    expect(numbers()).toEqual([1, 2, 1, 2, 1, 2]);
  });

  it('stops at a new worker that fails, and the old ones go on', async () => {
    await start(2).start();
    release(fails);
    await crew?.roll();
    expect(numbers()).toEqual([1, 2, 1]);
    expect(logged('A NEW WORKER DID NOT COME UP')).toMatchObject([{ level: 'error', replaced: 0, of: 2 }]);
    expect(waits.some((delayMs) => delayMs < 12_000)).toBe(false);
    release(serves);
    await crew?.roll();
    expect(logged('every worker has been replaced')).toHaveLength(1);
  });

  it('stops at a new worker that hangs', async () => {
    let isHasty = false;
    await start(1, (delayMs) => isHasty && delayMs === 120_000).start();
    release(hangs);
    isHasty = true;
    await crew?.roll();
    expect(logged('A NEW WORKER DID NOT COME UP')).toHaveLength(1);
    expect(await begun[1]?.ended).toMatchObject({ signal: 'SIGKILL' });
    expect(logged('a worker ended')).toEqual([]);
  });

  it('kills an old worker that does not leave', async () => {
    release(program(`process.send({ say: 'ready' })`, ''));
    await start(1, (delayMs) => delayMs === 12_000).start();
    release(serves);
    await crew?.roll();
    expect(await begun[0]?.ended).toMatchObject({ signal: 'SIGKILL' });
    expect(logged('a worker did not leave and is killed')).toHaveLength(1);
    expect(logged('every worker has been replaced')).toHaveLength(1);
  });

  it('is left where it stands when all stop', async () => {
    await start(2).start();
    release(hangs);
    const rolling = crew?.roll();
    await eventually(() => begun.length === 3);
    expect(await crew?.stop()).toBe(true);
    await rolling;
    expect(await begun[2]?.ended).toMatchObject({ signal: 'SIGKILL' });
    expect(logged('A NEW WORKER DID NOT COME UP')).toEqual([]);
  });

  it('is not done before all have started', async () => {
    const starting = start(2).start();
    await crew?.roll();
    await starting;
    expect(numbers()).toEqual([1, 2]);
  });
});

describe('the stop of a crew', () => {
  it('tells of one that did not end as it should', async () => {
    release(program(`process.send({ say: 'ready' })`, 'process.exit(1)'));
    await start(2).start();
    expect(await crew?.stop()).toBe(false);
    expect(logged('a worker ended')).toEqual([]);
  });
});
