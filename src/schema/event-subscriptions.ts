import { AegisError } from '../errors.ts';
import type { EventKind as Kind, StoredEvent, StreamGap } from '../events/event.ts';
import { builder } from './builder.ts';
import type { ConsumerContext } from './context.ts';
import { EventKind, Severity } from './enums.ts';
import { type EventArguments, eventFilterOf } from './events.ts';
import {
  AnomalyEventRef,
  eventTypeName,
  GenericEventRef,
  ProcessEventRef,
  StreamGapRef,
  ThreatEventRef,
} from './refs.ts';
import { streamOf } from './streams.ts';

StreamGapRef.implement({
  description:
    'Stands in a stream where events were missed and cannot be had again, say because they are past their retention.',
  fields: (t) => ({
    from: t.exposeString('from', { nullable: true }),
    to: t.exposeString('to'),
    reason: t.exposeString('reason'),
  }),
});

const EventStreamItem = builder.unionType('EventStreamItem', {
  needs: 'events:read',
  types: [AnomalyEventRef, ThreatEventRef, ProcessEventRef, GenericEventRef, StreamGapRef],
  resolveType: (item) => ('position' in item ? eventTypeName(item.kind) : 'StreamGap'),
});

interface StreamArguments extends EventArguments {
  readonly labels?: readonly string[] | null | undefined;
  readonly after?: string | null | undefined;
}

/** Throws BAD_USER_INPUT, AGENT_NOT_FOUND, CURSOR_INVALID before anything is streamed. */
async function eventStream<Item>(
  args: StreamArguments,
  context: ConsumerContext,
  showGap: (gap: StreamGap) => Item,
): Promise<AsyncIterableIterator<StoredEvent | Item>> {
  const { events, loaders, consumer, place } = context;
  const filter = await eventFilterOf(args, context);
  const after = place?.lastSeen ?? args.after ?? (place ? await events.cursorOfNow() : null);
  if (after !== null) events.positionOf(after);
  if (place) place.cursor = after;
  const labels = args.labels ?? [];

  async function shown(item: StoredEvent | StreamGap): Promise<StoredEvent | Item | null> {
    if (!('position' in item)) return showGap(item);
    if (labels.length === 0) return item;
    const agent = await loaders.agents.load(item.agentUid);
    return agent && labels.every((label) => agent.labels.includes(label)) ? item : null;
  }

  return streamOf<StoredEvent | StreamGap, StoredEvent | Item>(
    context,
    (signal) => events.subscribe(consumer, filter, after, signal),
    async (item) => {
      const admitted = await shown(item);
      if (place) place.cursor = 'position' in item ? events.cursorOf(item) : item.to;
      return admitted;
    },
  );
}

builder.queryField('eventCursor', (t) =>
  t.string({
    needs: 'events:read',
    description:
      'Where the stream of events stands now. As `after` it makes a subscription miss nothing from here on, even if its connection is lost before the first event.',
    resolve: (_root, _args, { events }) => events.cursorOfNow(),
  }),
);

/** A stream of one kind has no room for a gap: it ends with one. */
function typedStream(kind: Kind, args: StreamArguments, context: ConsumerContext) {
  return eventStream({ ...args, kinds: [kind] }, context, (): never => {
    throw new AegisError('CURSOR_EXPIRED');
  });
}

builder.subscriptionFields((t) => ({
  anomalies: t.field({
    type: AnomalyEventRef,
    needs: 'events:read',
    args: {
      agentId: t.arg.id(),
      labels: t.arg.stringList(),
      minSeverity: t.arg({ type: Severity }),
      includeUntrusted: t.arg.boolean({ defaultValue: false }),
      after: t.arg.string(),
    },
    subscribe: (_root, args, context) => typedStream('anomalies', args, context),
    resolve: (event) => event,
  }),
  threats: t.field({
    type: ThreatEventRef,
    needs: 'events:read',
    args: {
      agentId: t.arg.id(),
      labels: t.arg.stringList(),
      minSeverity: t.arg({ type: Severity }),
      includeUntrusted: t.arg.boolean({ defaultValue: false }),
      after: t.arg.string(),
    },
    subscribe: (_root, args, context) => typedStream('threats', args, context),
    resolve: (event) => event,
  }),
  processes: t.field({
    type: ProcessEventRef,
    needs: 'events:read',
    args: {
      agentId: t.arg.id(),
      labels: t.arg.stringList(),
      includeUntrusted: t.arg.boolean({ defaultValue: false }),
      after: t.arg.string(),
    },
    subscribe: (_root, args, context) => typedStream('processes', args, context),
    resolve: (event) => event,
  }),
  events: t.field({
    type: EventStreamItem,
    needs: 'events:read',
    description: 'Any kinds in one stream, gaps told.',
    args: {
      kinds: t.arg({ type: [EventKind] }),
      agentId: t.arg.id(),
      labels: t.arg.stringList(),
      minSeverity: t.arg({ type: Severity }),
      includeUntrusted: t.arg.boolean({ defaultValue: false }),
      after: t.arg.string(),
    },
    subscribe: (_root, args, context) => eventStream(args, context, (gap) => gap),
    resolve: (item) => item,
  }),
}));
