import { setTimeout as pause } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { V1Agent } from '../../src/agent-client/index.ts';
import { EventStreamDocument, GatewayDocument, SendMessageDocument } from '../../src/consumer-client/client.ts';
import { launch } from '../commands/launch.ts';
import { hasPostgres } from '../support/databases.ts';
import { eventually } from '../support/eventually.ts';
import { dialAllAlong, isAlive, startWorkers, untilGone, type WorkersStage } from './stage.ts';

/** A roll takes seconds, and minutes where the machine has ten times as much to do as it can. */
const patienceMs = 150_000;
const allOf = <Item>(items: Iterable<Item>) => [...new Set(items)].sort();

/** In this order, on one primary: each starts with what the one before has left. */
describe.skipIf(!hasPostgres())('two workers on one port', { timeout: 300_000 }, () => {
  let stage: WorkersStage;
  let agents: V1Agent[];
  beforeAll(async () => {
    stage = await startWorkers(2);
    agents = await Promise.all(Array.from({ length: 24 }, (_, index) => stage.agent(`host-${index}`)));
  }, patienceMs);
  afterAll(() => stage?.stop());

  async function instances(): Promise<Map<string, string | null>> {
    const entries = agents.map(async ({ agentId }) => [agentId, await stage.instanceOf(agentId)] as const);
    return new Map(await Promise.all(entries));
  }

  async function untilAllConnected(): Promise<void> {
    await eventually(async () => [...(await instances()).values()].every((id) => id !== null), patienceMs);
  }

  it('greets once and names both as instances', async () => {
    expect(stage.run.stdout.match(/is ready/g)).toHaveLength(1);
    const [, name = ''] = /^Aegis gateway (\S+) is ready/m.exec(stage.run.stdout) ?? [];
    const { gateway } = await stage.client.query(GatewayDocument);
    expect([...gateway.instances].sort()).toEqual([`${name}.1`, `${name}.2`]);
    expect(stage.served).toHaveLength(2);
  });

  it('shares connections among them', async () => {
    expect(allOf((await instances()).values())).toHaveLength(2);
  });

  it('tells what both measure in one answer, each under its number', async () => {
    const labels = await eventually(async () => {
      const body = await (await stage.get('/metrics')).text();
      const samples = [...body.matchAll(/^aegis_links\{protocol="v1",worker="(\d)"\} (\d+)$/gm)];
      const links = samples.reduce((sum, [, , count]) => sum + Number(count), 0);
      return links === agents.length && samples.map(([, worker]) => worker);
    });
    expect(labels.sort()).toEqual(['1', '2']);
    expect((await stage.get('/readyz')).status).toBe(200);
  });

  it('carries a command to an agent of either at once, whoever accepts it', async () => {
    for (const { agentId, commands } of agents) {
      const input = { agentId, channel: 'POLICIES' as const, payload: { op: 'reload' } };
      await stage.client.mutate(SendMessageDocument, { input });
      await commands.next(() => true, { timeoutMs: patienceMs });
    }
  });

  it('has both read certificates and keys again at SIGHUP', async () => {
    stage.run.kill('SIGHUP');
    const lines = await eventually(() => {
      const read = stage.logged('the keys were read again');
      return read.length === 2 && read;
    });
    expect(allOf(lines.map(({ instance }) => instance))).toHaveLength(2);
    expect(agents.every(({ linkCount }) => linkCount === 1)).toBe(true);
  });

  it('starts a worker anew that was killed, and its agents come back', async () => {
    const [victim = 0, other = 0] = stage.served;
    process.kill(victim, 'SIGKILL');
    await eventually(() => stage.served.length === 3, patienceMs);
    await untilAllConnected();
    expect(stage.logged('a worker ended and is started again')).toMatchObject([
      { level: 'error', pid: victim, signal: 'SIGKILL', worker: 1 },
    ]);
    expect(isAlive(other)).toBe(true);
    expect(agents.some(({ isStranded }) => isStranded)).toBe(false);
    expect(agents.some(({ linkCount }) => linkCount === 1)).toBe(true);
  });

  it('replaces each once at SIGUSR2, on new files: no dial is refused, no event is lost, no agent left behind', async () => {
    stage.deployment.release('2.0.0');
    const before = stage.served.slice(-2);
    const dialling = dialAllAlong(stage.url);
    const stream = stage.client.subscribe(EventStreamDocument, { includeUntrusted: true });
    const cursors: string[] = [];
    const seen: string[] = [];
    const written: string[] = [];
    let isOver = false;

    async function subscribe(): Promise<void> {
      for await (const { events: event } of stream) {
        if (event.__typename === 'StreamGap') throw new Error('events were lost to the subscriber');
        cursors.push(event.cursor);
        seen.push(`${event.agentId} ${event.messageId}`);
      }
    }

    async function report(agent: V1Agent): Promise<void> {
      while (!isOver) {
        try {
          written.push(`${agent.agentId} ${(await agent.sendEvent('anomalies', {})).message.id}`);
        } catch {
          // Between two connections.
        }
        await pause(50);
      }
    }

    const subscribing = subscribe();
    const [reporter] = agents;
    if (reporter) await eventually(async () => (await reporter.sendEvent('anomalies', {})) && seen.length > 0);
    const linksBefore = agents.map(({ linkCount }) => linkCount);
    const reporting = agents.slice(0, 6).map(report);
    stage.run.kill('SIGUSR2');
    const [rolled] = await eventually(() => {
      const lines = stage.logged('every worker has been replaced');
      return lines.length > 0 && lines;
    }, patienceMs);
    await untilAllConnected();
    isOver = true;
    await Promise.all(reporting);
    const { dials, failures } = await dialling.end();

    expect(rolled).toMatchObject({ replaced: 2 });
    expect(stage.served.slice(-2).some((pid) => before.includes(pid))).toBe(false);
    expect(before.some(isAlive)).toBe(false);
    expect(stage.logged('a worker ended')).toHaveLength(1);
    expect((await stage.client.query(GatewayDocument)).gateway).toMatchObject({ version: '2.0.0' });
    expect(dials).toBeGreaterThan(20);
    expect(failures).toEqual([]);
    expect(agents.some(({ isStranded }) => isStranded)).toBe(false);
    expect(agents.some(({ linkCount }, index) => linkCount === linksBefore[index])).toBe(false);
    await eventually(() => written.every((id) => seen.includes(id)), patienceMs);
    await stream.return?.();
    await subscribing;
    expect(cursors).toHaveLength(new Set(cursors).size);
    expect(allOf((await instances()).values())).toHaveLength(2);
  });

  it('keeps those that run where a new build does not come up, says so, and tries no more', async () => {
    const before = stage.served;
    stage.deployment.breakWorkers();
    stage.run.kill('SIGUSR2');
    const [line] = await eventually(() => {
      const lines = stage.logged('A NEW WORKER DID NOT COME UP');
      return lines.length > 0 && lines;
    }, patienceMs);
    expect(line).toMatchObject({ level: 'error', replaced: 0, of: 2 });
    expect(stage.run.stderr).toContain('a broken build');
    expect(stage.served).toEqual(before);
    expect((await stage.get('/readyz')).status).toBe(200);
  });

  it('stops as one at SIGTERM, with 0 and in time', async () => {
    const workers = stage.served.slice(-2);
    const agent = await stage.agent('late');
    const stoppedMs = performance.now();
    stage.run.kill('SIGTERM');
    expect(await stage.run.ended).toBe(0);
    expect(performance.now() - stoppedMs).toBeLessThan(10_000);
    expect(stage.run.stdout).toMatch(/^SIGTERM: stopping$/m);
    expect(workers.some(isAlive)).toBe(false);
    expect((await agent.nextEvent('closed')).code).toBe(1012);
  });
});

describe.skipIf(!hasPostgres())('a primary that is killed', { timeout: 300_000 }, () => {
  it('takes its workers with it, and leaves the port to the next one', async () => {
    const stage = await startWorkers(2);
    try {
      const byHand = launch([stage.deployment.entry, 'worker'], {});
      const agent = await stage.agent('host-1');
      stage.run.kill('SIGKILL');
      await untilGone(stage.served);
      expect((await agent.nextEvent('closed')).code).toBe(1012);
      await expect(stage.get('/healthz')).rejects.toThrow();
      // Nobody else begins one.
      expect(await byHand.ended).toBe(2);
      expect(byHand.stderr).toMatch(/^A worker is begun by `serve`/);
    } finally {
      await stage.stop();
    }
  });
});
