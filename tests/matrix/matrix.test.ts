import { randomInt } from 'node:crypto';
import { setTimeout as pause } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type SeededRandom, seededRandom } from '../../src/agent-client/seeded-random.ts';
import { isFinal } from '../../src/messages/message.ts';
import type { History } from '../faults/history.ts';
import { violationsIn } from '../faults/invariants.ts';
import { postgresPrograms } from '../faults/postgres-cluster.ts';
import { canMountSmallDisk } from '../faults/small-disk.ts';
import { type FaultStage, startFaultStage } from '../faults/stage.ts';
import { untilNone } from '../faults/until-none.ts';
import { faults } from './faults.ts';
import { openJournal } from './journal.ts';
import { reportOf } from './report.ts';
import { startTopology, type Topology } from './topology.ts';
import { excessOver, vitalsOf } from './vitals.ts';

const { FAULT, FAULT_SEED, FAULT_ROUNDS = '1', FAULT_JOURNAL } = process.env;
const firstSeed = Number(FAULT_SEED ?? randomInt(1_000_000));
const canMount = canMountSmallDisk();
const chosen = Object.keys(faults).filter((name) => FAULT === undefined || FAULT.split(',').includes(name));
const possible = chosen.filter((name) => canMount || name !== 'disk-full');

/** A Postgres that went away without a word is waited for 40 s (docs/ARCHITECTURE.md, "When the database is silent"). */
const recoveryTimeoutMs = 90_000;

/** Of each gateway, where somebody does not come back. */
const shownLogCharacters = 4_000;

const isInstalled = postgresPrograms() !== null;
if (!isInstalled && process.env.CI) throw new Error('no Postgres is installed, and CI does harm to a real one');
if (!isInstalled) process.stderr.write('No Postgres is installed: there is nothing to do harm to.\n');

const journal = openJournal(FAULT_JOURNAL);
const seeds = Array.from({ length: Number(FAULT_ROUNDS) }, (_, index) => firstSeed + index).filter((seed) =>
  possible.some((fault) => !journal.isDone(seed, fault)),
);
afterAll(() => void process.stdout.write(reportOf(journal)));

describe.skipIf(!isInstalled).each(seeds)('two gateways to which everything happens, seed %i', (seed) => {
  let topology: Topology;
  let stage: FaultStage;
  let vitals: Awaited<ReturnType<typeof vitalsOf>>;
  let history: History;

  beforeAll(async () => {
    topology = await startTopology(seededRandom(seed + 1), canMount);
    vitals = await vitalsOf(topology);
    const { url, agentUrl, token, serving, cluster, wires } = topology;
    const holds = () => wires.agents[0].holds;
    const load = { databaseUrl: cluster.url, holds, v2Agents: 4 };
    stage = await startFaultStage({ seed, url, agentUrl, token, serving, ...load });
  });

  afterAll(async () => {
    await stage?.stop();
    await topology?.stop();
  });

  const crashes = () => topology.gateways.flatMap((gateway) => gateway.crashes);

  it.skipIf(possible.length < chosen.length).each(chosen.filter((name) => !possible.includes(name)))(
    '%s: no disk can be mounted here',
    () => {},
  );

  const due = shuffled(possible, seededRandom(seed)).filter((fault) => !journal.isDone(seed, fault));
  it.each(due)('%s', async (name) => {
    // Of its own, so that it is the same without the others.
    const random = seededRandom(seed * 100 + Object.keys(faults).indexOf(name));
    await pause(random.integer(200, 1_500));
    const aftermath: Promise<unknown>[] = [];
    const notes: string[] = [];
    const beganMs = performance.now();
    await faults[name]?.({
      ...{ topology, random },
      note: (text) => void notes.push(text),
      meanwhile: (what) => void aftermath.push(what),
    });
    const sinceMs = performance.now();
    const missing = stage.lookForAll();
    const news = stage.lookForNews();
    let last: readonly string[] = [];
    await untilNone(async () => {
      if (crashes().length > 0) return crashes();
      const left = [...(await missing()), ...news()];
      if (left.length > 0) last = left;
      return left;
    }, recoveryTimeoutMs).catch((error: Error) => {
      const logs = topology.gateways.map(
        ({ log }, index) => `gateway ${index + 1}:\n${log.slice(-shownLogCharacters)}`,
      );
      throw new Error([error.message, ...logs].join('\n'), { cause: error });
    });
    const tookMs = performance.now() - sinceMs;
    await Promise.all(aftermath);
    history = await stage.history();
    await untilNone(() => stage.behind(history.stored), 20_000);
    expect(violationsIn(history, { isAtRest: false }).slice(0, 10)).toEqual([]);
    expect(stage.load.surprises).toEqual([]);
    expect(crashes()).toEqual([]);
    journal.note({ seed, fault: name, notes: notes.join(', '), tookMs: Math.round(tookMs) });
    const lasted = [beganMs, sinceMs, sinceMs + tookMs, performance.now()].map(
      (ms, index, all) => ms - (all[index - 1] ?? ms),
    );
    const [, fault, recovery, check] = lasted.map(Math.round);
    process.stdout.write(
      `${seed} ${name} (${notes.join(', ')}): fault ${fault} ms, back after ${recovery} ms, checked in ${check} ms; at last ${last[0]?.split('\n')[0]}\n`,
    );
  });

  it('has an end for every message and has shown every event, once it is left alone', async () => {
    await stage.quieten();
    await untilNone(async () => {
      history = await stage.history();
      const open = history.stored.messages.filter(({ status }) => !isFinal(status));
      return [
        ...open.map(({ id, status }) => `${id} is ${status}`),
        ...stage.behind(history.stored, history.streams),
        ...stage.v2Fleet.unacknowledged(),
      ];
    }, 60_000);
    expect(violationsIn(history, { isAtRest: true }).slice(0, 10)).toEqual([]);
    expect(stage.load.surprises).toEqual([]);
    expect(crashes()).toEqual([]);
  });

  it('holds nothing more than before it began, once everyone is gone', async () => {
    await stage.stop();
    // Requests have left connections that are kept for the next ones, and a peer that vanished is for the kernel to notice.
    for (const wire of [...topology.wires.consumers, ...topology.wires.agents]) wire.reset();
    await untilNone(async () => excessOver(vitals, await vitalsOf(topology)), 60_000);
    journal.note({ seed, counts: countsOf(history) });
  });
});

function countsOf({ sends, reads, reports, stored, streams, owners }: History) {
  return {
    ...{ 'requests for messages': sends.length, 'messages stored': stored.messages.length },
    ...{ 'commands read': reads.length, 'events reported': reports.length, 'events stored': stored.events.length },
    'events shown': streams.reduce((sum, { events }) => sum + events.length, 0),
    links: owners.length,
  };
}

function shuffled(names: readonly string[], random: SeededRandom): readonly string[] {
  const rest = [...names];
  return names.flatMap(() => rest.splice(random.integer(0, rest.length - 1), 1));
}
