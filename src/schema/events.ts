import { agentChannelName } from '../agent-gateway/wire/channels.ts';
import { AegisError } from '../errors.ts';
import type { EventFilter, EventKind as Kind, Severity as Level } from '../events/event.ts';
import { anomalyFields, processFields, type ThreatIndicator, threatFields } from '../events/fields.ts';
import { keysetRange } from '../paging.ts';
import { builder } from './builder.ts';
import { connectionOf, EventConnection } from './connections.ts';
import type { ConsumerContext } from './context.ts';
import { EventKind, Severity } from './enums.ts';
import { checkBounds } from './inputs.ts';
import { agentRefOf } from './node-ids.ts';
import {
  AgentRef,
  AnomalyEventRef,
  EventRef,
  eventTypeName,
  GenericEventRef,
  NodeRef,
  ProcessEventRef,
  ThreatEventRef,
} from './refs.ts';

EventRef.implement({
  needs: 'events:read',
  interfaces: [NodeRef],
  resolveType: (event) => eventTypeName(event.kind),
  fields: (t) => ({
    cursor: t.string({
      description: 'Where this event stands in the stream; pass it as `after` to go on from here.',
      resolve: (event, _args, { events }) => events.cursorOf(event),
    }),
    kind: t.expose('kind', { type: EventKind }),
    messageId: t.exposeString('messageId', { description: 'The id that the agent gave the message.' }),
    agentId: t.exposeString('agentName'),
    agent: t.field({
      type: AgentRef,
      nullable: true,
      resolve: (event, _args, { loaders }) => loaders.agents.load(event.agentUid),
    }),
    channel: t.string({
      description: 'Long form: agent.<agentId>.<kind>',
      resolve: (event) => agentChannelName(event.agentName, event.kind),
    }),
    occurredAt: t.expose('occurredAt', { type: 'DateTime', description: "The agent's clock." }),
    receivedAt: t.expose('receivedAt', { type: 'DateTime', description: "The gateway's clock." }),
    trusted: t.exposeBoolean('trusted', {
      description: 'False while the agent waits for approval, of itself or of a new key.',
    }),
    sealed: t.exposeBoolean('sealed', {
      description:
        'True where the agent sealed the body so that only it can read it; payload is null then. Passes every severity filter.',
    }),
    payload: t.expose('payload', { type: 'JSON', nullable: true }),
  }),
});

AnomalyEventRef.implement({
  needs: 'events:read',
  interfaces: [NodeRef, EventRef],
  fields: (t) => ({
    type: t.string({ nullable: true, resolve: (event) => anomalyFields(event.payload).type }),
    severity: t.expose('severity', { type: Severity }),
    message: t.string({ nullable: true, resolve: (event) => anomalyFields(event.payload).message }),
  }),
});

const ThreatIndicatorRef = builder.objectRef<ThreatIndicator>('ThreatIndicator').implement({
  fields: (t) => ({
    type: t.exposeString('type', { nullable: true }),
    value: t.exposeString('value', { nullable: true }),
    confidence: t.exposeFloat('confidence', { nullable: true }),
    severity: t.expose('severity', { type: Severity }),
    source: t.exposeString('source', { nullable: true }),
  }),
});

ThreatEventRef.implement({
  needs: 'events:read',
  interfaces: [NodeRef, EventRef],
  fields: (t) => ({
    type: t.string({ nullable: true, resolve: (event) => threatFields(event.payload).type }),
    severity: t.expose('severity', { type: Severity }),
    description: t.string({ nullable: true, resolve: (event) => threatFields(event.payload).description }),
    source: t.string({ nullable: true, resolve: (event) => threatFields(event.payload).source }),
    indicators: t.field({ type: [ThreatIndicatorRef], resolve: (event) => threatFields(event.payload).indicators }),
    response: t.string({ nullable: true, resolve: (event) => threatFields(event.payload).response }),
  }),
});

ProcessEventRef.implement({
  needs: 'events:read',
  interfaces: [NodeRef, EventRef],
  fields: (t) => ({
    action: t.string({ nullable: true, resolve: (event) => processFields(event.payload).action }),
    pid: t.int({ nullable: true, resolve: (event) => processFields(event.payload).pid }),
    name: t.string({ nullable: true, resolve: (event) => processFields(event.payload).name }),
    path: t.string({ nullable: true, resolve: (event) => processFields(event.payload).path }),
    user: t.string({ nullable: true, resolve: (event) => processFields(event.payload).user }),
  }),
});

GenericEventRef.implement({ needs: 'events:read', description: 'Every other kind.', interfaces: [NodeRef, EventRef] });

/** The arguments by which queries and subscriptions choose events. */
export interface EventArguments {
  readonly kinds?: readonly Kind[] | null | undefined;
  readonly agentId?: string | null | undefined;
  readonly minSeverity?: Level | null | undefined;
  readonly includeUntrusted?: boolean | null | undefined;
}

/** The filter that arguments mean. Throws BAD_USER_INPUT, AGENT_NOT_FOUND. */
export async function eventFilterOf(args: EventArguments, context: ConsumerContext): Promise<EventFilter> {
  checkBounds(args);
  return {
    kinds: args.kinds ?? undefined,
    agentUid: args.agentId == null ? undefined : await agentUidOf(args.agentId, context),
    minSeverity: args.minSeverity ?? undefined,
    includeUntrusted: args.includeUntrusted ?? false,
  };
}

/** Throws AGENT_NOT_FOUND. */
export async function agentUidOf(agentId: string, { fleet, consumer }: ConsumerContext): Promise<string> {
  const agent = await fleet.find(consumer, agentRefOf(agentId));
  if (!agent) throw new AegisError('AGENT_NOT_FOUND');
  return agent.uid;
}

builder.queryField('events', (t) =>
  t.field({
    type: EventConnection,
    needs: 'events:read',
    args: {
      kinds: t.arg({ type: [EventKind] }),
      agentId: t.arg.id(),
      minSeverity: t.arg({ type: Severity }),
      includeUntrusted: t.arg.boolean({ defaultValue: false }),
      ...t.arg.connectionArgs(),
    },
    resolve: async (_root, args, context) => {
      const { events, consumer } = context;
      const filter = await eventFilterOf(args, context);
      keysetRange(args, events.positionOf);
      return connectionOf(
        () => events.page(consumer, filter, args),
        (event) => events.cursorOf(event),
      );
    },
  }),
);
