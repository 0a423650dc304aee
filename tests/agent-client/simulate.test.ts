import { describe, expect, it, vi } from 'vitest';
import { deployedHabits, Journal, type SimulationOptions, simulate } from '../../src/agent-client/index.ts';
import { useStage } from './stage.ts';

const stage = useStage();

/** Starts a simulation on the stage's clock and gives its lines of progress. */
function startSimulation(options: Partial<SimulationOptions> = {}) {
  const { server, clock } = stage();
  const lines = new Journal<string>('line of progress', 100);
  const stop = new AbortController();
  const totals = simulate({
    url: server.url,
    agents: 4,
    ratePerSecond: 10,
    dialects: ['enveloped'],
    signal: stop.signal,
    out: (line) => lines.record(line),
    clock,
    ...options,
  });
  return { server, clock, lines, stop, totals };
}

/** Waits until so many agents have registered, and have read that they have. */
async function registered(agents: number): Promise<void> {
  const { server } = stage();
  for (let count = 0; count < agents; count++) {
    const { peer } = await server.next('frame', ({ channel }) => channel === 'agent.registration.complete');
    server.ping(peer, 'registered');
    await server.next('pong');
  }
}

describe('a simulation', () => {
  it('connects its agents, sends at the total rate, and says so each second', async () => {
    const { server, clock, lines, stop, totals } = startSimulation();
    await registered(4);
    for (let second = 0; second < 3; second++) clock.advance(1_000);
    expect(lines.entries).toHaveLength(3);
    for (let count = 0; count < 20; count++) await server.next('frame', ({ text }) => text.includes('"id":"msg_'));
    stop.abort();
    const { sent, errors, stranded } = await totals;
    expect(sent).toBeGreaterThanOrEqual(20);
    expect(sent).toBeLessThanOrEqual(30);
    expect({ errors, stranded }).toEqual({ errors: 0, stranded: 0 });
    expect(lines.entries.at(-1)).toMatch(
      /^3 s · connected 4\/4 · sent \d+\/s, \d+ in all · commands 0 · errors 0 · stranded 0$/,
    );
  });

  it('spreads its events over all agents', async () => {
    const { server, clock, stop, totals } = startSimulation();
    await registered(4);
    clock.advance(1_000);
    const peers = new Set<number>();
    while (peers.size < 4) peers.add((await server.next('frame', ({ text }) => text.includes('"id":"msg_'))).peer);
    stop.abort();
    await totals;
  });

  it('counts the commands that its agents receive', async () => {
    const { server, stop, totals } = startSimulation({ agents: 1, ratePerSecond: 0 });
    await registered(1);
    const { headers } = await server.next('open');
    const publicKey = Buffer.from(String(headers['x-agent-public-key']), 'base64');
    server.send(1, server.commandFrame(publicKey, 'backend.policies', {}));
    server.ping(1, 'read');
    await server.next('pong');
    stop.abort();
    expect(await totals).toMatchObject({ sent: 0, commandsReceived: 1 });
  });

  it('has no more handshakes under way than it was told', async () => {
    const { server, clock, stop, totals } = startSimulation({ agents: 10, connectConcurrency: 3 });
    server.script.grant = null;
    for (let count = 0; count < 3; count++) await server.next('frame', ({ channel }) => channel === 'auth');
    expect(server.seen.entries.filter(({ ev }) => ev === 'open')).toHaveLength(3);
    clock.advance(10_000);
    for (let count = 0; count < 3; count++) await server.next('frame', ({ channel }) => channel === 'auth');
    expect(server.seen.entries.filter(({ ev }) => ev === 'open')).toHaveLength(6);
    stop.abort();
    expect(await totals).toMatchObject({ errors: 3, stranded: 3, sent: 0 });
  });

  it('gives the dialects to the agents in turn', async () => {
    const { server, stop, totals } = startSimulation({
      agents: 4,
      dialects: ['enveloped', 'handoff'],
      ratePerSecond: 0,
    });
    await registered(2);
    for (let count = 0; count < 2; count++) {
      await server.next('frame', ({ text, channel }) => channel === '' && text.startsWith('{"agent_id":"sim-000'));
    }
    stop.abort();
    await totals;
  });

  it('has one agent in ten that never registers', async () => {
    const { server, stop, totals } = startSimulation({ agents: 10, ratePerSecond: 0, connectConcurrency: 1 });
    await registered(9);
    await server.next('frame', ({ channel }) => channel === 'agent.sim-0010.heartbeat');
    stop.abort();
    await totals;
    expect(server.framesOf(10)).toHaveLength(2);
  });

  it('ends when its time is over, not before, and leaves no connection and no timer', async () => {
    const { server, clock, totals } = startSimulation({
      durationMs: 5_000,
      ratePerSecond: 0,
      habits: deployedHabits.enveloped,
    });
    await registered(4);
    clock.advance(4_999);
    expect(server.openPeers).toHaveLength(4);
    clock.advance(1);
    await totals;
    for (const peer of [1, 2, 3, 4]) await server.next('close', (closed) => closed.peer === peer);
    expect(clock.pendingTimers).toBe(0);
  });

  it('ends at once when it is stopped before it began', async () => {
    const { totals } = startSimulation({ signal: AbortSignal.abort() });
    expect(await totals).toMatchObject({ sent: 0, commandsReceived: 0 });
  });

  it('goes on where the gateway refuses everybody', async () => {
    const { server } = stage();
    server.script.upgradeStatus = 503;
    const { clock, lines, stop, totals } = startSimulation({ agents: 2 });
    await vi.waitFor(() => {
      clock.advance(1_000);
      expect(lines.entries.at(-1)).toMatch(/connected 0\/2 .* errors 2 · stranded 2$/);
    });
    stop.abort();
    expect(await totals).toMatchObject({ errors: 2, stranded: 2, sent: 0 });
  });
});
