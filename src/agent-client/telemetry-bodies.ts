/** What agents report, kind by kind, in the shapes of the recordings. Addresses are from the documentation ranges. */
import type { EventKind } from '../agent-gateway/wire/channels.ts';
import type { JsonValue } from './go-json.ts';
import type { SeededRandom } from './seeded-random.ts';

export interface BodyContext {
  readonly random: SeededRandom;
  readonly agentId: string;
  /** `an-17` and the like, numbered through all kinds. */
  readonly number: number;
  readonly nowMs: number;
}

/** One body of each kind. */
export const telemetryBodies: Readonly<Record<EventKind, (context: BodyContext) => JsonValue>> = {
  anomalies({ random, number, nowMs }) {
    const [type, message, metadata] = random.pick(anomalies)(random);
    const body = { id: `an-${number}`, message, metadata, severity: severityWord(random), type };
    // Some detectors tell when they saw it, in one form or the other.
    if (random.chance(0.2)) return { ...body, timestamp: Math.floor(nowMs / 1_000) };
    return random.chance(0.2) ? { ...body, detected_at: new Date(nowMs).toISOString() } : body;
  },
  threats({ random, number }) {
    const [type, description] = random.pick(threats);
    const source = random.pick(['feed-a', 'feed-b', 'heuristics', 'yara']);
    const severity = random.pickWeighted([
      ['critical', 3],
      ['high', 3],
      ['HIGH', 1],
      ['Medium', 2],
      ['severe', 1],
    ]);
    const indicators = Array.from({ length: random.integer(1, 3) }, (_, index) => ({
      ...indicator(random),
      confidence: random.integer(50, 99) / 100,
      id: `i${index + 1}`,
      severity,
      source,
    }));
    const response = random.pick(['blocked', 'quarantined', 'alerted', 'process killed']);
    return { description, id: `te-${number}`, indicators, response, severity, source, type };
  },
  processes({ random }) {
    const [name, path, cmdline, user] = random.pick(processes);
    const action = random.pickWeighted([
      ['exec', 6],
      ['exit', 3],
      ['kill', 1],
    ]);
    return { action, cmdline, name, path, pid: random.integer(300, 65_535), ppid: random.integer(1, 299), user };
  },
  status({ random, agentId }) {
    const status = random.pickWeighted([
      ['running', 9],
      ['degraded', 1],
    ]);
    return { agent_id: agentId, policy_count: random.integer(2, 9), status, uptime_s: random.integer(60, 900_000) };
  },
  logs({ random }) {
    const [level, message] = random.pick(logLines);
    return { component: random.pick(['engine', 'netwatch', 'policy', 'updater']), level, message };
  },
  policies({ random }) {
    const status = random.pickWeighted([
      ['applied', 8],
      ['failed', 1],
      ['pending', 1],
    ]);
    return {
      policy_id: `p${random.integer(1, 12)}`,
      rules: random.integer(1, 40),
      status,
      version: random.integer(1, 30),
    };
  },
  dependencies({ random }) {
    const [name, version, advisory] = random.pick(dependencies);
    return { advisory, manager: 'dpkg', name, severity: advisory ? severityWord(random) : 'none', version };
  },
  tests({ random, number }) {
    const passed = random.chance(0.9);
    const duration = random.integer(3, 4_000);
    return { duration_ms: duration, id: `test-${number}`, name: random.pick(selfTests), passed };
  },
  rollbacks({ random }) {
    const success = random.chance(0.9);
    const reason = random.pick(['health check failed', 'requested by console', 'signature mismatch']);
    return { policy_id: `p${random.integer(1, 12)}`, reason, success, to_version: random.integer(1, 30) };
  },
  heartbeat: () => ({}),
};

/** As detectors write it: any case, and words of their own. */
function severityWord(random: SeededRandom): string {
  return random.pickWeighted([
    ['low', 4],
    ['medium', 4],
    ['high', 3],
    ['critical', 1],
    ['HIGH', 1],
    ['Critical', 1],
    ['Medium', 1],
    ['info', 2],
    ['warn', 2],
    ['WARNING', 1],
    ['error', 1],
  ]);
}

function indicator(random: SeededRandom): { type: string; value: string } {
  return random.pick([
    { type: 'ip', value: documentationAddress(random) },
    { type: 'domain', value: `${random.hex(8)}.example.net` },
    { type: 'sha256', value: random.hex(64) },
    { type: 'url', value: `http://${documentationAddress(random)}/${random.hex(4)}?a=1&b=<2>` },
  ]);
}

/** RFC 5737 */
function documentationAddress(random: SeededRandom): string {
  return `${random.pick(['192.0.2', '198.51.100', '203.0.113'])}.${random.integer(1, 254)}`;
}

type Anomaly = readonly [type: string, message: string, metadata: JsonValue];

const anomalies: readonly [(random: SeededRandom) => Anomaly, ...((random: SeededRandom) => Anomaly)[]] = [
  (random) => [
    'beaconing',
    `periodic beacon to ${documentationAddress(random)}:443`,
    { interval_s: random.pick([30, 60, 300]) },
  ],
  (random) => ['port_scan', `${random.integer(20, 900)} ports probed`, { source: documentationAddress(random) }],
  (random) => ['dns_tunnel', `long labels under ${random.hex(6)}.example.org`, { queries: random.integer(50, 5_000) }],
  (random) => ['login_burst', 'failed logins <many> & from one address', { attempts: random.integer(10, 400) }],
  (random) => ['file_burst', 'files rewritten faster than by hand', { files: random.integer(100, 9_000) }],
  (random) => ['new_listener', 'a process listens that never did', { port: random.integer(1_024, 65_535) }],
];

const threats: readonly [readonly [string, string], ...(readonly [string, string])[]] = [
  ['c2', 'known C2 address'],
  ['malware', 'file matches a known family'],
  ['ransomware', 'mass encryption under /home'],
  ['cryptominer', 'connection to a mining pool'],
  ['credential_access', 'memory of a login process read'],
  ['persistence', 'cron entry written by a web server'],
];

type ProcessFacts = readonly [name: string, path: string, cmdline: string, user: string];

const processes: readonly [ProcessFacts, ...ProcessFacts[]] = [
  ['curl', '/usr/bin/curl', 'curl http://203.0.113.7/x', 'www-data'],
  ['bash', '/usr/bin/bash', "bash -c 'id && uname -a > /tmp/.x'", 'www-data'],
  ['sshd', '/usr/sbin/sshd', 'sshd: deploy [priv]', 'root'],
  ['postgres', '/usr/lib/postgresql/18/bin/postgres', 'postgres: checkpointer', 'postgres'],
  ['python3', '/usr/bin/python3', 'python3 -m http.server 8000', 'dev'],
  ['systemctl', '/usr/bin/systemctl', 'systemctl restart nginx', 'root'],
];

type LogLine = readonly [level: string, message: string];

const logLines: readonly [LogLine, ...LogLine[]] = [
  ['info', 'rule set reloaded'],
  ['info', 'inventory scan finished'],
  ['WARN', 'queue above half of its size'],
  ['error', 'eBPF probe detached & attached again'],
];

type Dependency = readonly [name: string, version: string, advisory: string | null];

const dependencies: readonly [Dependency, ...Dependency[]] = [
  ['openssl', '3.0.16-1', null],
  ['zlib1g', '1:1.3.1', null],
  ['xz-utils', '5.6.1-1', 'CVE-2024-3094'],
  ['libexpat1', '2.6.1-2', 'CVE-2024-45490'],
];

const selfTests: readonly [string, ...string[]] = [
  'eicar_detected',
  'policy_blocks_port',
  'rollback_restores',
  'probe_attached',
];
