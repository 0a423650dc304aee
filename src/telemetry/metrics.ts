import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';
import { type ErrorCode, errorCatalogue } from '../errors.ts';
import { type EventKind, eventKinds } from '../events/event.ts';
import type { AgentProtocol } from '../fleet/agent.ts';
import type { GatewayStatistics } from '../gateway-info.ts';
import { type Message, messageStatuses } from '../messages/message.ts';

/** What the gateway counts and measures, for Prometheus. Names are those of `docs/OPERATIONS.md`. */
export interface Metrics {
  eventStored(kind: EventKind): void;
  authenticated(protocol: AgentProtocol, durationMs: number, code: ErrorCode | null): void;
  upgradeRefused(code: ErrorCode): void;
  upgradeAdmitted(heldMs: number): void;
  frameRefused(code: ErrorCode): void;
  /** `fault` is one of a few words. */
  handshakeFailed(fault: string): void;
  recordRefused(fault: string): void;
  messageChanged(message: Message): void;
  /** The same numbers for consumers. */
  statistics(): Promise<GatewayStatistics>;
  /** Text in the Prometheus exposition format. */
  expose(): Promise<{ contentType: string; body: string }>;
  /** The same as values, to be told to another process. */
  values(): Promise<readonly object[]>;
}

/** What is read when metrics are asked for. */
export interface Gauges {
  readonly links: (protocol: AgentProtocol) => number;
  readonly unauthenticated: () => number;
  readonly upgradesHeld: () => number;
  readonly exhaustedAddresses: () => number;
  readonly agentsPaused: () => number;
  readonly eventsWaiting: () => number;
  readonly subscriptions: () => number;
  readonly busPeers: () => number;
  readonly busHintsLost: () => number;
  /** Null where the gateway has no certificate. */
  readonly certificateExpiresAt: () => Date | null;
  /** Null until it has been compared. */
  readonly clockAheadMs: () => number | null;
}

export function createMetrics(gauges: Gauges): Metrics {
  const registry = new Registry();
  const registers = [registry];
  collectDefaultMetrics({ register: registry });
  const gauge = (name: string, help: string, read: () => number) =>
    new Gauge({
      name,
      help,
      registers,
      collect() {
        this.set(read());
      },
    });
  new Gauge({
    name: 'aegis_links',
    help: 'Authenticated links of agents to this instance, by protocol',
    labelNames: ['protocol'],
    registers,
    collect() {
      for (const protocol of ['v1', 'v2'] as const) this.set({ protocol }, gauges.links(protocol));
    },
  });
  gauge('aegis_links_unauthenticated', 'Sockets that have not authenticated yet', gauges.unauthenticated);
  gauge('aegis_upgrades_held', 'Upgrades of v1 that wait for their turn', gauges.upgradesHeld);
  gauge('aegis_addresses_exhausted', 'Addresses that failed so often that they wait', gauges.exhaustedAddresses);
  gauge('aegis_agents_paused', 'Links that are not read, for their agents sent too much', gauges.agentsPaused);
  gauge('aegis_events_waiting', 'Events that wait for the database', gauges.eventsWaiting);
  gauge('aegis_subscriptions', 'Live subscriptions to events', gauges.subscriptions);
  gauge('aegis_bus_peers', 'Other gateways that the bus has lately heard', gauges.busPeers);
  gauge('aegis_bus_hints_lost', 'Hints that could not be carried to other gateways', gauges.busHintsLost);
  new Gauge({
    name: 'aegis_tls_certificate_expiry_timestamp_seconds',
    help: 'When the TLS certificate expires, in seconds since 1970; no sample without one',
    registers,
    collect() {
      const expiresAt = gauges.certificateExpiresAt();
      if (expiresAt) this.set(expiresAt.getTime() / 1_000);
      else this.remove();
    },
  });
  new Gauge({
    name: 'aegis_clock_ahead_seconds',
    help: "How far this machine's clock is ahead of the database's; beyond 5 s either way the database's time is used",
    registers,
    collect() {
      const aheadMs = gauges.clockAheadMs();
      if (aheadMs !== null) this.set(aheadMs / 1_000);
    },
  });
  const events = new Counter({
    name: 'aegis_events_total',
    help: 'Events stored, by kind',
    labelNames: ['kind'],
    registers,
  });
  const authentications = new Counter({
    name: 'aegis_authentications_total',
    help: 'Authentications of agents, by result, ok or the code of the refusal, and by protocol',
    labelNames: ['result', 'protocol'],
    registers,
  });
  const authenticationSeconds = new Histogram({
    name: 'aegis_authentication_seconds',
    help: 'From the upgrade to the answer',
    buckets: [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10],
    registers,
  });
  const refusedUpgrades = new Counter({
    name: 'aegis_upgrades_refused_total',
    help: 'Upgrades of agents that were answered with an error, by its code',
    labelNames: ['reason'],
    registers,
  });
  const holdSeconds = new Histogram({
    name: 'aegis_upgrade_hold_seconds',
    help: 'How long upgrades of v1 waited before the 101',
    buckets: [0.01, 0.1, 0.5, 1, 2, 4, 6, 7, 8, 9],
    registers,
  });
  const refused = new Counter({
    name: 'aegis_frames_refused_total',
    help: 'Frames of agents that were dropped, by reason',
    labelNames: ['reason'],
    registers,
  });
  const failedHandshakes = new Counter({
    name: 'aegis_v2_handshakes_failed_total',
    help: 'Handshakes of v2 that failed, by what was wrong; agents are told one thing whatever it is',
    labelNames: ['fault'],
    registers,
  });
  const refusedRecords = new Counter({
    name: 'aegis_v2_records_refused_total',
    help: 'Records of v2 that ended their link, by what was wrong',
    labelNames: ['fault'],
    registers,
  });
  const messages = new Counter({
    name: 'aegis_messages_total',
    help: 'Messages that came into a status',
    labelNames: ['status'],
    registers,
  });
  const deliverySeconds = new Histogram({
    name: 'aegis_message_delivery_seconds',
    help: 'From the acceptance of a message to its delivery',
    buckets: [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30, 300, 3600],
    registers,
  });

  const attempts = new Counter({
    name: 'aegis_message_attempts_total',
    help: 'Frames written for the messages that were delivered',
    registers,
  });
  const since = new Date();

  return {
    eventStored: (kind) => events.inc({ kind }),
    authenticated(protocol, durationMs, code) {
      authentications.inc({ result: code ?? 'ok', protocol });
      authenticationSeconds.observe(durationMs / 1_000);
    },
    upgradeRefused: (code) => refusedUpgrades.inc({ reason: code }),
    upgradeAdmitted: (heldMs) => holdSeconds.observe(heldMs / 1_000),
    frameRefused: (code) => refused.inc({ reason: code }),
    handshakeFailed: (fault) => failedHandshakes.inc({ fault }),
    recordRefused: (fault) => refusedRecords.inc({ fault }),
    messageChanged(message) {
      messages.inc({ status: message.status });
      if (message.status !== 'delivered' || !message.deliveredAt) return;
      attempts.inc(message.attempts);
      deliverySeconds.observe((message.deliveredAt.getTime() - message.createdAt.getTime()) / 1_000);
    },
    async statistics() {
      const { values: delivery } = await deliverySeconds.get();
      const deliveries = delivery.find(({ metricName }) => metricName?.endsWith('_count'))?.value ?? 0;
      const seconds = delivery.find(({ metricName }) => metricName?.endsWith('_sum'))?.value ?? 0;
      const byStatus = await countsBy(messages, 'status', messageStatuses);
      const byKind = await countsBy(events, 'kind', eventKinds);
      const byReason = await countsBy(refused, 'reason', errorCodes);
      return {
        since,
        messages: byStatus.map(([status, count]) => ({ status, count })),
        deliveryAttempts: (await attempts.get()).values[0]?.value ?? 0,
        meanDeliveryMs: deliveries === 0 ? null : (1_000 * seconds) / deliveries,
        events: byKind.map(([kind, count]) => ({ kind, count })),
        refusedFrames: byReason.map(([reason, count]) => ({ reason, count })),
      };
    },
    async expose() {
      return { contentType: registry.contentType, body: await registry.metrics() };
    },
    values: () => registry.getMetricsAsJSON(),
  };
}

const errorCodes = Object.keys(errorCatalogue).filter((code): code is ErrorCode => code in errorCatalogue);

/** A counter's values by one label, in the order of what that label can say; what was never counted is left out. */
async function countsBy<Label extends string, Value extends string>(
  counter: Counter<Label>,
  label: Label,
  known: readonly Value[],
): Promise<[Value, number][]> {
  const { values } = await counter.get();
  return known.flatMap((value): [Value, number][] => {
    const count = values.find(({ labels }) => labels[label] === value)?.value;
    return count === undefined ? [] : [[value, count]];
  });
}
