import { describe, expect, it } from 'vitest';
import type { Clock } from '../src/clock.ts';
import { createLinkReport } from '../src/telemetry/link-report.ts';
import { createLog } from '../src/telemetry/log.ts';
import { createMetrics } from '../src/telemetry/metrics.ts';
import { exposeTogether, reportOf } from '../src/telemetry/together.ts';

/** A log whose lines are kept. */
function keptLog(level: Parameters<typeof createLog>[0] = 'debug') {
  const lines: Record<string, unknown>[] = [];
  const log = createLog(level, { write: (line: string) => lines.push(JSON.parse(line)) });
  return { log, lines, text: () => JSON.stringify(lines) };
}

const message = {
  id: 'm',
  sequence: 1,
  agentUid: 'a',
  agentName: 'a',
  orgId: 'o',
  kind: 'policies',
  type: 'request',
  priority: 'normal',
  status: 'delivered',
  payload: null,
  attempts: 1,
  maxRetries: 3,
  createdAt: new Date(1_000),
  sentAt: new Date(1_100),
  deliveredAt: new Date(1_250),
  expiresAt: new Date(9_000),
  failure: null,
  broadcastId: null,
  traceparent: null,
  revision: 0,
  history: [],
} as const;

const gauges = {
  ...{
    links: () => 3,
    unauthenticated: () => 2,
    upgradesHeld: () => 7,
    exhaustedAddresses: () => 1,
    agentsPaused: () => 6,
    eventsWaiting: () => 5,
    subscriptions: () => 4,
    busPeers: () => 8,
    busHintsLost: () => 9,
  },
  certificateExpiresAt: () => new Date(1_700_000_000_500),
  clockAheadMs: () => -3_600_250,
};

describe('the log', () => {
  it('is JSON lines with a time, a level by name and a message', () => {
    const { log, lines } = keptLog();
    log.info({ agent: 'web-1' }, 'a link opened');
    expect(lines).toEqual([
      { level: 'info', time: expect.stringMatching(/^\d{4}-\d\d-\d\dT.*Z$/), agent: 'web-1', msg: 'a link opened' },
    ]);
  });

  it('writes nothing below its level', () => {
    const { log, lines } = keptLog('warn');
    log.info('not this');
    log.warn('this');
    expect(lines).toHaveLength(1);
  });

  it.each([
    'authorization',
    'Authorization',
    'cookie',
    'token',
    'session_token',
    'sessionToken',
    'bootstrap_token',
    'bootstrapToken',
    'x-bootstrap-token',
    'privateKey',
    'adminToken',
    'ADMIN_TOKEN',
    'password',
    'DATABASE_URL',
    'databaseUrl',
    'sentinelPassword',
  ])('keeps what is called %s to itself, however deep', (name) => {
    const { log, lines, text } = keptLog();
    const secret = 'hunter2-hunter2';
    log.info({ [name]: secret, agent: 'seen' });
    log.info({ request: { [name]: secret, path: 'seen' } });
    log.info({ request: { headers: { [name]: [secret], host: 'seen' } } });
    log.info({ list: [{ body: { [name]: secret, kind: 'seen' } }] });
    log.child({ [name]: secret }).info('seen');
    expect(text()).not.toContain(secret);
    for (const line of lines) expect(JSON.stringify(line)).toContain('seen');
    expect(text().match(/\[redacted\]/g)?.length).toBe(5);
  });

  it('tells an error with its code and stack', () => {
    const { log, lines } = keptLog();
    log.error({ err: Object.assign(new Error('broken'), { code: '53100' }) }, 'events could not be stored');
    expect(lines).toMatchObject([{ err: { message: 'broken', code: '53100', stack: expect.any(String) } }]);
  });
});

describe('the metrics', () => {
  it('expose every name, with what was counted', async () => {
    const metrics = createMetrics(gauges);
    metrics.eventStored('threats');
    metrics.eventStored('threats');
    metrics.authenticated('v1', 30, null);
    metrics.authenticated('v2', 2, 'AUTH_CLOCK_SKEW');
    metrics.frameRefused('FRAME_REPLAYED');
    metrics.upgradeRefused('ADMISSION_BUSY');
    metrics.upgradeAdmitted(3_000);
    metrics.messageChanged(message);
    metrics.messageChanged({ ...message, status: 'sent', deliveredAt: null });
    const { body, contentType } = await metrics.expose();
    expect(contentType).toContain('text/plain');
    for (const line of [
      'aegis_links{protocol="v1"} 3',
      'aegis_links_unauthenticated 2',
      'aegis_upgrades_held 7',
      'aegis_agents_paused 6',
      'aegis_addresses_exhausted 1',
      'aegis_upgrades_refused_total{reason="ADMISSION_BUSY"} 1',
      'aegis_upgrade_hold_seconds_bucket{le="4"} 1',
      'aegis_events_waiting 5',
      'aegis_bus_peers 8',
      'aegis_bus_hints_lost 9',
      'aegis_subscriptions 4',
      'aegis_tls_certificate_expiry_timestamp_seconds 1700000000.5',
      'aegis_clock_ahead_seconds -3600.25',
      'aegis_events_total{kind="threats"} 2',
      'aegis_authentications_total{result="ok",protocol="v1"} 1',
      'aegis_authentications_total{result="AUTH_CLOCK_SKEW",protocol="v2"} 1',
      'aegis_authentication_seconds_bucket{le="0.05"} 2',
      'aegis_authentication_seconds_count 2',
      'aegis_frames_refused_total{reason="FRAME_REPLAYED"} 1',
      'aegis_messages_total{status="delivered"} 1',
      'aegis_messages_total{status="sent"} 1',
      'aegis_message_delivery_seconds_count 1',
      'aegis_message_delivery_seconds_sum 0.25',
    ])
      expect(body.split('\n')).toContain(line);
    expect(body).toContain('process_cpu_seconds_total');
  });

  it('have no expiry where there is no certificate', async () => {
    const { body } = await createMetrics({ ...gauges, certificateExpiresAt: () => null }).expose();
    expect(body).toContain('# TYPE aegis_tls_certificate_expiry_timestamp_seconds gauge');
    expect(body).not.toMatch(/^aegis_tls_certificate_expiry_timestamp_seconds /m);
  });

  it('of two gateways in one process are their own', async () => {
    const [one, two] = [createMetrics(gauges), createMetrics(gauges)];
    one.eventStored('logs');
    expect((await one.expose()).body).toContain('aegis_events_total{kind="logs"} 1');
    expect((await two.expose()).body).not.toContain('aegis_events_total{kind="logs"}');
  });
});

describe('the metrics of several workers', () => {
  it('stand beside each other, each with the number of its worker, and every name once', async () => {
    const [one, two] = [createMetrics(gauges), createMetrics({ ...gauges, subscriptions: () => Number.NaN })];
    one.eventStored('logs');
    two.authenticated('v1', 30, null);
    const reports = [reportOf(1, await one.values()), reportOf(2, await two.values())];
    const { body, contentType } = await exposeTogether(reports);
    expect(contentType).toBe((await one.expose()).contentType);
    const lines = body.split('\n');
    for (const line of [
      'aegis_links{protocol="v1",worker="1"} 3',
      'aegis_links{protocol="v1",worker="2"} 3',
      'aegis_subscriptions{worker="1"} 4',
      'aegis_subscriptions{worker="2"} Nan',
      'aegis_events_total{kind="logs",worker="1"} 1',
      'aegis_authentication_seconds_bucket{le="0.05",worker="2"} 1',
      'aegis_authentication_seconds_bucket{le="+Inf",worker="2"} 1',
      'aegis_authentication_seconds_count{worker="1"} 0',
      'aegis_authentication_seconds_count{worker="2"} 1',
    ])
      expect(lines).toContain(line);
    expect(lines.filter((line) => line.startsWith('process_start_time_seconds{'))).toHaveLength(2);
    const types = lines.filter((line) => line.startsWith('# TYPE'));
    expect(types).toHaveLength(new Set(types).size);
    const names = (text: string) => [...text.matchAll(/^# TYPE (\S+)/gm)].map(([, name]) => name).sort();
    expect(names(body)).toEqual(names((await one.expose()).body));
  });
});

describe('what links tell', () => {
  it('counts every refused frame and logs one line for each reason and interval', async () => {
    const { log, lines } = keptLog();
    const metrics = createMetrics(gauges);
    let summarise = () => {};
    let isStopped = false;
    const clock: Clock = {
      now: () => 0,
      after: () => () => {},
      every(_intervalMs, task) {
        summarise = task;
        return () => {
          isStopped = true;
        };
      },
    };
    const report = createLinkReport(log, metrics, clock);
    for (let index = 0; index < 1_000; index++) report.refusedFrame(`agent-${index}`, 'FRAME_MALFORMED');
    for (let index = 0; index < 5; index++) report.refusedFrame('flapping', 'FRAME_REPLAYED');
    expect(lines).toEqual([]);
    summarise();
    expect(lines).toMatchObject([
      { level: 'warn', code: 'FRAME_MALFORMED', count: 1_000, lastAgent: 'agent-999' },
      { level: 'debug', code: 'FRAME_REPLAYED', count: 5, lastAgent: 'flapping' },
    ]);
    summarise();
    expect(lines).toHaveLength(2);
    report.refusedFrame('late', 'FRAME_MALFORMED');
    report.stop();
    expect(isStopped).toBe(true);
    expect(lines).toHaveLength(3);
    expect((await metrics.expose()).body).toContain('aegis_frames_refused_total{reason="FRAME_MALFORMED"} 1001');
  });
});
