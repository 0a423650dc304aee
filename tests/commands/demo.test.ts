import { beforeAll, describe, expect, it } from 'vitest';
import { type Run, run } from './command-line.ts';

describe('demo --once', () => {
  let demo: Run;
  let tookMs: number;
  beforeAll(async () => {
    const startedMs = performance.now();
    demo = run(['demo', '--once']);
    await demo.ended;
    tookMs = performance.now() - startedMs;
  }, 150_000);

  it('plays one round, checks it, sums up and ends by itself within 30 s', async () => {
    expect([await demo.ended, demo.stderr]).toEqual([0, '']);
    expect(tookMs).toBeLessThan(30_000);
    expect(demo.stdout).toMatch(/^ {2}ok {2}25 agents connected and shown as they came, 5 of them over protocol v2$/m);
    expect(demo.stdout).toMatch(/^ {2}ok {2}\d{2,} anomalies, \d{2,} threats, \d{2,} processes seen live/m);
    expect(demo.stdout).toMatch(/^ {2}ok {2}1 broadcast to 25 agents: 22 delivered, 3 failed, none open$/m);
    expect(demo.stdout).toMatch(/^demo: ok after \d+\.\d s\n$/m);
  });

  it('prints columns without colours where nobody looks at a terminal', () => {
    expect(demo.stdout).not.toContain('\u001b');
    const rows = demo.stdout.split('\n').filter((line) => /^\d\d:\d\d:\d\d /.test(line));
    expect(rows.length).toBeGreaterThan(100);
    const columns = /^.{8} (anomaly|threat|process|presence|command|broadcast) +([A-Z]+)? +(\S+|25 agents) +\S/;
    for (const row of rows) {
      expect(row).toMatch(columns);
      expect(row.slice(8, 9) + row.slice(18, 19) + row.slice(28, 29)).toBe('   ');
    }
  });
});

describe('demo', () => {
  it('goes on until SIGINT, and then ends with 0', { timeout: 120_000 }, async () => {
    const demo = run(['demo']);
    await demo.printed(/^.{8} command +DELIVERED /m);
    demo.kill('SIGINT');
    expect(await demo.ended).toBe(0);
    expect(demo.stdout).toMatch(/^demo: stopped$/m);
  });

  it('refuses an option that there is not, and says how it is used', async () => {
    const demo = run(['demo', '--twice']);
    expect(await demo.ended).toBe(2);
    expect(demo.stderr).toContain('--twice');
    expect(demo.stderr).toContain('Usage: aegis-gateway');
  });
});
