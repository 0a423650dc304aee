import { randomInt } from 'node:crypto';
import { setTimeout as pause } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type SeededRandom, seededRandom } from '../../src/agent-client/seeded-random.ts';
import { isFinal } from '../../src/messages/message.ts';
import type { History } from '../faults/history.ts';
import { violationsIn } from '../faults/invariants.ts';
import { postgresPrograms } from '../faults/postgres-cluster.ts';
import { type FaultStage, startFaultStage } from '../faults/stage.ts';
import { untilNone } from '../faults/until-none.ts';
import { faults } from './faults.ts';
import { reportOf } from './report.ts';
import { startTopology, type Topology } from './topology.ts';
import { excessOver, vitalsOf } from './vitals.ts';

const { FAULT, FAULT_SEED, FAULT_ROUNDS = '1' } = process.env;
const firstSeed = Number(FAULT_SEED ?? randomInt(1_000_000));
const seeds = Array.from({ length: Number(FAULT_ROUNDS) }, (_, index) => firstSeed + index);
const chosen = Object.keys(faults).filter((name) => FAULT === undefined || FAULT.split(',').includes(name));

/** A Postgres that went away without a word is waited for 40 s (docs/ARCHITECTURE.md, "When the database is silent"). */
const recoveryTimeoutMs = 90_000;

const isInstalled = postgresPrograms() !== null;
if (!isInstalled && process.env.CI) throw new Error('no Postgres is installed, and CI does harm to a real one');
if (!isInstalled) process.stderr.write('No Postgres is installed: there is nothing to do harm to.\n');

const recoveries: { readonly fault: string; readonly tookMs: number }[] = [];
afterAll(() => void process.stdout.write(reportOf(recoveries)));

describe.skipIf(!isInstalled).each(seeds)('two gateways to which everything happens, seed %i', (seed) => {
  const random = seededRandom(seed);
  let topology: Topology;
  let stage: FaultStage;
  let vitals: Awaited<ReturnType<typeof vitalsOf>>;
  let history: History;

  beforeAll(async () => {
    topology = await startTopology(seededRandom(seed + 1));
    vitals = await vitalsOf(topology);
    const { url, agentUrl, token, serving, cluster, wires } = topology;
    const holds = () => wires.agents[0].holds;
    const load = { databaseUrl: cluster.url, holds, v2Agents: 4 };
    stage = await startFaultStage({ seed, url, agentUrl, token, serving, ...load });
  });

  afterAll(async () => {
    if (history) process.stdout.write(`${JSON.stringify(countsOf(history))}\n`);
    await stage?.stop();
    await topology?.stop();
  });

  const crashes = () => topology.gateways.flatMap((gateway) => gateway.crashes);

  it.each(shuffled(chosen, random))('%s', async (name) => {
    await pause(random.integer(500, 2_500));
    const aftermath: Promise<unknown>[] = [];
    const notes: string[] = [];
    await faults[name]?.({
      ...{ topology, random },
      note: (text) => void notes.push(text),
      meanwhile: (what) => void aftermath.push(what),
    });
    process.stdout.write(`${name}: ${notes.join(', ')}\n`);
    const sinceMs = performance.now();
    const missing = stage.lookForAll();
    const news = stage.lookForNews();
    let last: readonly string[] = [];
    await untilNone(async () => {
      if (crashes().length > 0) return crashes();
      const silent = news();
      const left = silent.length > 0 ? silent : await missing();
      if (left.length > 0) last = left;
      return left;
    }, recoveryTimeoutMs);
    const tookMs = performance.now() - sinceMs;
    recoveries.push({ fault: name, tookMs });
    await Promise.all(aftermath);
    history = await stage.history();
    await untilNone(() => stage.behind(history.stored), 20_000);
    expect(violationsIn(history, { isAtRest: false }).slice(0, 10)).toEqual([]);
    expect(stage.load.surprises).toEqual([]);
    expect(crashes()).toEqual([]);
    process.stdout.write(`${seed} ${name} (${notes.join(', ')}): ${Math.round(tookMs)} ms, at last ${last[0]}\n`);
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
  });
});

function countsOf({ sends, reads, reports, stored, streams, owners }: History) {
  return {
    ...{ asked: sends.length, read: reads.length, reported: reports.length, links: owners.length },
    ...{ messages: stored.messages.length, events: stored.events.length },
    shown: streams.map(({ events }) => events.length),
  };
}

function shuffled(names: readonly string[], random: SeededRandom): readonly string[] {
  const rest = [...names];
  return names.flatMap(() => rest.splice(random.integer(0, rest.length - 1), 1));
}
