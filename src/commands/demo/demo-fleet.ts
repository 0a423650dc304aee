import { createTelemetry, type Dialect, type JsonValue, type Telemetry } from '../../agent-client/index.ts';
import { type DemoAgent, startV1DemoAgent, startV2DemoAgent } from './demo-agents.ts';

/** The kinds that consoles subscribe to one by one. */
export const alarmKinds = ['anomalies', 'threats', 'processes'] as const;
export type AlarmKind = (typeof alarmKinds)[number];

/** An alarm as an agent wrote it. */
export interface SentAlarm {
  readonly kind: AlarmKind;
  readonly agentId: string;
  readonly messageId: string;
  readonly body: JsonValue;
  readonly sealed: boolean;
}

/** Twenty-five agents: most as deployed, some of protocol v2. */
export interface DemoFleet {
  readonly agents: readonly DemoAgent[];
  /** Those that can open a command. */
  readonly commandable: readonly DemoAgent[];
  /** Those that speak the handoff dialect: what they seal nobody can open, what is sealed for them neither. */
  readonly handoff: readonly DemoAgent[];
  /** Has every agent that is connected report one event of each alarm kind. */
  reportAll(): Promise<void>;
  /** Has agents report at random, `perSecond` events in all, until the returned function is called. */
  startReporting(perSecond: number): () => void;
  close(): Promise<void>;
}

interface Host {
  readonly name: string;
  /** Of v1; agents of v2 have none. */
  readonly dialect: Dialect | null;
  readonly registers: boolean;
}

const hosts: readonly Host[] = [
  ...hostsNamed('web', 'fra.example.net', 8, { dialect: 'enveloped', registers: true }),
  ...hostsNamed('db', 'fra.example.net', 4, { dialect: 'enveloped', registers: true }),
  ...hostsNamed('api', 'ams.example.net', 5, { dialect: null, registers: false }),
  ...hostsNamed('build', 'ams.example.net', 3, { dialect: 'enveloped', registers: true }),
  ...hostsNamed('edge', 'lon.example.net', 2, { dialect: 'enveloped', registers: false }),
  ...hostsNamed('kiosk', 'lon.example.net', 3, { dialect: 'handoff', registers: false }),
];

/** Starts the agents and resolves when all are connected. Rejects, with all closed again, where one does not get there. */
export async function startDemoFleet(options: {
  readonly url: string;
  /** The gateway's keys, by fingerprint, for the agents that look. */
  readonly pins: readonly string[];
  readonly onSent: (alarm: SentAlarm) => void;
}): Promise<DemoFleet> {
  const members = await Promise.all(
    hosts.map(async (host, index) => ({
      ...host,
      agent: await startAgent(options, host),
      telemetry: createTelemetry({ seed: index + 1, agentId: host.name }),
    })),
  );
  type Member = (typeof members)[number];
  const close = async () => {
    await Promise.all(members.map(({ agent }) => agent.close()));
  };
  try {
    await Promise.all(members.map(({ agent }) => agent.ready()));
  } catch (error) {
    await close();
    throw error;
  }

  async function report({ agent, dialect }: Member, { kind, body }: ReturnType<Telemetry['next']>): Promise<void> {
    const messageId = await agent.report(kind, body);
    if (isAlarmKind(kind))
      options.onSent({ kind, agentId: agent.agentId, messageId, body, sealed: dialect === 'handoff' });
  }

  return {
    agents: members.map(({ agent }) => agent),
    commandable: members.filter(({ dialect }) => dialect !== 'handoff').map(({ agent }) => agent),
    handoff: members.filter(({ dialect }) => dialect === 'handoff').map(({ agent }) => agent),
    async reportAll() {
      const ready = members.filter(({ agent }) => agent.isReady);
      for (const kind of alarmKinds)
        await Promise.all(ready.map((member) => report(member, member.telemetry.nextOf(kind))));
    },
    startReporting(perSecond) {
      const timer = setInterval(() => {
        const ready = members.filter(({ agent }) => agent.isReady);
        const member = ready[Math.floor(Math.random() * ready.length)];
        // An agent whose connection goes away meanwhile keeps the event to itself, as deployed ones do.
        if (member) report(member, member.telemetry.next()).catch(() => undefined);
      }, 1_000 / perSecond);
      return () => clearInterval(timer);
    },
    close,
  };
}

async function startAgent(
  { url, pins }: { readonly url: string; readonly pins: readonly string[] },
  { name, dialect, registers }: Host,
): Promise<DemoAgent> {
  return dialect ? startV1DemoAgent(url, name, dialect, registers) : startV2DemoAgent(url, name, pins);
}

function hostsNamed(role: string, domain: string, count: number, facts: Omit<Host, 'name'>): Host[] {
  return Array.from({ length: count }, (_, index) => ({
    name: `${role}-${String(index + 1).padStart(2, '0')}.${domain}`,
    ...facts,
  }));
}

function isAlarmKind(kind: string): kind is AlarmKind {
  return alarmKinds.some((alarm) => alarm === kind);
}
