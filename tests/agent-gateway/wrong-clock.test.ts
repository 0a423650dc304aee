import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import { hasPostgres } from '../support/databases.ts';
import { type Stage, startStage } from './stage.ts';

const hourMs = 3_600_000;
const rightMs = () => Math.floor(performance.timeOrigin + performance.now());

describe.skipIf(!hasPostgres()).each([hourMs, -hourMs])('a gateway whose clock is %i ms ahead', (aheadMs) => {
  let stage: Stage;

  beforeAll(async () => {
    vi.spyOn(Date, 'now').mockImplementation(() => rightMs() + aheadMs);
    stage = await startStage();
  });
  afterEach(() => stage.endAgents());
  afterAll(async () => {
    await stage.stop();
    vi.restoreAllMocks();
  });

  it('lets agents of v1 in whose clocks are right, and no others', async () => {
    const right = await stage.registered({ now: rightMs });
    const sentAtMs = rightMs();
    const id = right.report('logs', { line: 'all is well' });
    const { occurredAt } = await stage.event(right.agentId, id);
    expect(Math.abs(Date.parse(occurredAt) - sentAtMs)).toBeLessThan(60_000);
    const wrong = await stage.dial({ now: () => rightMs() + aheadMs });
    expect(await wrong.authenticate()).toMatchObject({ success: false, code: 'AUTH_CLOCK_SKEW' });
  });

  it('gives sessions of v2 their time', async () => {
    const agent = await stage.connectedV2();
    const { expiresAtMs, serverTimeMs } = agent.grant;
    expect(Math.abs(serverTimeMs - rightMs())).toBeLessThan(60_000);
    expect(expiresAtMs).toBeGreaterThan(rightMs());
  });

  it('says so', async () => {
    const readiness = await (await stage.gateway.fetch('/readyz')).json();
    const side = aheadMs > 0 ? 'ahead of' : 'behind';
    expect(readiness).toMatchObject({
      ready: true,
      warnings: [expect.stringContaining(`is 3600 s ${side} the database's`)],
    });
    expect(Math.round(await stage.metric('aegis_clock_ahead_seconds'))).toBe(aheadMs / 1_000);
  });
});
