import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';
import type { ErrorCode } from '../errors.ts';
import type { EventKind } from '../events/event.ts';
import type { Message } from '../messages/message.ts';

/** What the gateway counts and measures, for Prometheus. Names are those of `docs/OPERATIONS.md`. */
export interface Metrics {
  eventStored(kind: EventKind): void;
  authenticated(durationMs: number, code: ErrorCode | null): void;
  frameRefused(code: ErrorCode): void;
  messageChanged(message: Message): void;
  /** Text in the Prometheus exposition format. */
  expose(): Promise<{ contentType: string; body: string }>;
}

/** What is read when metrics are asked for. */
export interface Gauges {
  readonly links: () => number;
  readonly unauthenticated: () => number;
  readonly eventsWaiting: () => number;
  readonly subscriptions: () => number;
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
  gauge('aegis_links', 'Authenticated links of agents to this instance', gauges.links);
  gauge('aegis_links_unauthenticated', 'Sockets that have not authenticated yet', gauges.unauthenticated);
  gauge('aegis_events_waiting', 'Events that wait for the database', gauges.eventsWaiting);
  gauge('aegis_subscriptions', 'Live subscriptions to events', gauges.subscriptions);
  const events = new Counter({
    name: 'aegis_events_total',
    help: 'Events stored, by kind',
    labelNames: ['kind'],
    registers,
  });
  const authentications = new Counter({
    name: 'aegis_authentications_total',
    help: 'Authentications of agents, by result: ok or the code of the refusal',
    labelNames: ['result'],
    registers,
  });
  const authenticationSeconds = new Histogram({
    name: 'aegis_authentication_seconds',
    help: 'From the upgrade to the answer',
    buckets: [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10],
    registers,
  });
  const refused = new Counter({
    name: 'aegis_frames_refused_total',
    help: 'Frames of agents that were dropped, by reason',
    labelNames: ['reason'],
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

  return {
    eventStored: (kind) => events.inc({ kind }),
    authenticated(durationMs, code) {
      authentications.inc({ result: code ?? 'ok' });
      authenticationSeconds.observe(durationMs / 1_000);
    },
    frameRefused: (code) => refused.inc({ reason: code }),
    messageChanged(message) {
      messages.inc({ status: message.status });
      if (message.status === 'delivered' && message.deliveredAt)
        deliverySeconds.observe((message.deliveredAt.getTime() - message.createdAt.getTime()) / 1_000);
    },
    async expose() {
      return { contentType: registry.contentType, body: await registry.metrics() };
    },
  };
}
