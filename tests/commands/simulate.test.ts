import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { z } from 'zod';
import { startTestGateway, type TestGateway } from '../support/gateway.ts';
import { run } from './command-line.ts';

const totals = z.object({
  agents: z.number(),
  sent: z.number(),
  commandsReceived: z.number(),
  errors: z.number(),
  stranded: z.number(),
});

describe('simulate', () => {
  let gateway: TestGateway;
  beforeAll(async () => {
    gateway = await startTestGateway();
  });
  afterAll(() => gateway.stop());

  /** How many events the gateway has stored, by its metrics. */
  async function eventsStored(): Promise<number> {
    const metrics = await (await gateway.fetch('/metrics')).text();
    const samples = metrics.matchAll(/^aegis_events_total\{kind="(?!heartbeat)\w+"\} (\d+)$/gm);
    return [...samples].reduce((sum, [, count]) => sum + Number(count), 0);
  }

  it('drives a gateway for its time, tells how it goes, and sums up', async () => {
    const simulation = run([
      'simulate',
      '--url',
      gateway.agentUrl,
      '--agents',
      '6',
      '--rate',
      '40',
      '--seconds',
      '3',
      '--handoff',
    ]);
    expect([await simulation.ended, simulation.stderr]).toEqual([0, '']);
    expect(simulation.stdout).toMatch(
      /^2 s · connected 6\/6 · sent \d+\/s, \d+ in all · commands 0 · errors 0 · stranded 0$/m,
    );
    const summary = totals.parse(JSON.parse(simulation.stdout.trimEnd().split('\n').at(-1) ?? ''));
    expect(summary).toMatchObject({ agents: 6, commandsReceived: 0, errors: 0, stranded: 0 });
    expect(summary.sent).toBeGreaterThan(40);
    expect(await eventsStored()).toBe(summary.sent);
    const answer: unknown = await (await gateway.fetch('/agents')).json();
    expect(answer).toMatchObject({ total: 6 });
  });

  it('plays agents of v1 and v2 side by side, each report acknowledged', async () => {
    const before = await eventsStored();
    const simulation = run([
      'simulate',
      '--url',
      gateway.agentUrl,
      '--protocol',
      'mixed',
      '--agents',
      '4',
      '--rate',
      '40',
      '--seconds',
      '3',
    ]);
    expect([await simulation.ended, simulation.stderr]).toEqual([0, '']);
    expect(simulation.stdout).toMatch(/^2 s · connected 4\/4 · /m);
    const { sent } = totals.parse(JSON.parse(simulation.stdout.trimEnd().split('\n').at(-1) ?? ''));
    expect((await eventsStored()) - before).toBe(sent);
    const metrics = await (await gateway.fetch('/metrics')).text();
    expect(metrics).toMatch(/^aegis_authentications_total\{[^}]*protocol="v2"[^}]*\} 2$/m);
  });

  it('keeps agents of v2 from a gateway that they do not pin', async () => {
    const pin = 'ab'.repeat(32);
    const options = ['--protocol', 'v2', '--pin', pin, '--agents', '1', '--rate', '0', '--seconds', '1'];
    const simulation = run(['simulate', '--url', gateway.agentUrl, ...options]);
    expect(await simulation.ended).toBe(1);
    expect(simulation.stdout).toContain('connected 0/1');
  });

  it('ends at SIGINT with its summary', async () => {
    const simulation = run(['simulate', '--url', gateway.agentUrl, '--agents', '2', '--rate', '0']);
    await simulation.printed(/connected 2\/2/);
    simulation.kill('SIGINT');
    expect(await simulation.ended).toBe(0);
    expect(simulation.stdout).toMatch(/^\{"agents":2,/m);
  });

  it('ends with 1 where agents could not connect', async () => {
    const elsewhere = gateway.agentUrl.replace('/ws/agent', '/ws/elsewhere');
    const simulation = run(['simulate', '--url', elsewhere, '--agents', '2', '--rate', '1', '--seconds', '1']);
    expect(await simulation.ended).toBe(1);
    expect(simulation.stdout).toContain('"errors":2,"stranded":2');
  });

  it.each([
    ['--agents', '0'],
    ['--agents', 'many'],
    ['--rate', '-1'],
    ['--seconds', '0'],
    ['--url', 'nowhere'],
    ['--protocol', 'v3'],
    ['--pin', 'abc'],
  ])('refuses %s %s, names it and ends with 2', async (option, value) => {
    const simulation = run(['simulate', `${option}=${value}`]);
    expect([await simulation.ended, simulation.stdout]).toEqual([2, '']);
    expect(simulation.stderr).toMatch(new RegExp(`^${option}: .+\\n$`));
  });
});
