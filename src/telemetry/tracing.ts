import type { Attributes, SpanKind } from '@opentelemetry/api';
import type { Clock } from '../clock.ts';
import type { StoredEvent } from '../events/event.ts';
import { isFinal, type Message } from '../messages/message.ts';

/** An operation of GraphQL, once it has been executed. */
export interface EndedOperation {
  readonly type: string;
  readonly name: string | null;
  /** The caller's, as W3C Trace Context has it; null where there was none. */
  readonly traceparent: string | null;
  readonly startedAt: Date;
  readonly hasErrors: boolean;
}

/** Tells a collector of OpenTelemetry what the gateway did. Spans are made of what has ended, so nothing runs inside of one. */
export interface Tracing {
  operationEnded(operation: EndedOperation): void;
  /** A message that came to its end is one span, from its acceptance on, beneath the request that sent it. */
  messageChanged(message: Message): void;
  /** One span for each group of events. */
  eventsStored(events: readonly StoredEvent[], startedAt: Date): void;
  /** Sends what waits, for a second at most. */
  stop(): Promise<void>;
}

export const noTracing: Tracing = {
  operationEnded: () => {},
  messageChanged: () => {},
  eventsStored: () => {},
  stop: async () => {},
};

const flushTimeoutMs = 1_000;

interface EndedSpan {
  readonly name: string;
  readonly kind: SpanKind;
  readonly startedAt: Date;
  readonly endedAt: Date;
  readonly hasErrors: boolean;
  readonly attributes: Attributes;
  readonly traceparent?: string | null;
}

/** The libraries are loaded here and nowhere else: a gateway that traces nothing does not pay for them. */
export async function startTracing(
  endpoint: string,
  deps: { readonly clock: Clock; readonly version: string; readonly instanceId: string },
): Promise<Tracing> {
  const { clock, version, instanceId } = deps;
  const { ROOT_CONTEXT, SpanKind, SpanStatusCode, trace } = await import('@opentelemetry/api');
  const { BatchSpanProcessor, TracerProvider } = await import('@opentelemetry/sdk-trace');
  const { OTLPTraceExporter } = await import('@opentelemetry/exporter-trace-otlp-http');
  const { resourceFromAttributes } = await import('@opentelemetry/resources');
  const exporter = new OTLPTraceExporter({ url: `${endpoint.replace(/\/$/, '')}/v1/traces` });
  const provider = new TracerProvider({
    resource: resourceFromAttributes({
      'service.name': 'aegis-gateway',
      'service.version': version,
      'service.instance.id': instanceId,
    }),
    // Its queue is bounded: what a collector does not take in time is dropped.
    spanProcessors: [new BatchSpanProcessor({ exporter })],
  });
  const tracer = provider.getTracer('aegis-gateway', version);

  function record({ name, kind, startedAt, endedAt, hasErrors, attributes, traceparent }: EndedSpan): void {
    const [, traceId = '', spanId = '', flags = '0'] = traceparent?.split('-') ?? [];
    const parent = { traceId, spanId, traceFlags: Number.parseInt(flags, 16), isRemote: true };
    const context = traceparent ? trace.setSpanContext(ROOT_CONTEXT, parent) : ROOT_CONTEXT;
    const span = tracer.startSpan(name, { kind, startTime: startedAt, attributes }, context);
    if (hasErrors) span.setStatus({ code: SpanStatusCode.ERROR });
    span.end(endedAt);
  }

  return {
    operationEnded({ type, name, ...operation }) {
      record({
        ...operation,
        // A name is the caller's to choose: too many values for the name of a span.
        name: type,
        kind: SpanKind.SERVER,
        endedAt: new Date(clock.now()),
        attributes: { 'graphql.operation.type': type, ...(name === null ? {} : { 'graphql.operation.name': name }) },
      });
    },
    messageChanged(message) {
      if (!isFinal(message.status)) return;
      record({
        name: 'message',
        kind: SpanKind.PRODUCER,
        startedAt: message.createdAt,
        endedAt: message.deliveredAt ?? new Date(clock.now()),
        hasErrors: message.status === 'failed' || message.status === 'expired',
        traceparent: message.traceparent,
        attributes: {
          'aegis.message.id': message.id,
          'aegis.message.kind': message.kind,
          'aegis.message.status': message.status,
          'aegis.message.attempts': message.attempts,
          'aegis.agent.uid': message.agentUid,
        },
      });
    },
    eventsStored(events, startedAt) {
      record({
        name: 'store events',
        kind: SpanKind.INTERNAL,
        startedAt,
        endedAt: new Date(clock.now()),
        hasErrors: false,
        attributes: { 'aegis.events.count': events.length },
      });
    },
    async stop() {
      let giveUp = () => {};
      const timeout = new Promise<void>((resolve) => {
        giveUp = clock.after(flushTimeoutMs, resolve);
      });
      await Promise.race([provider.shutdown(), timeout]);
      giveUp();
    },
  };
}
