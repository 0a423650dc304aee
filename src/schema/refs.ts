import type { EventKind, StoredEvent, StreamGap } from '../events/event.ts';
import type { Agent } from '../fleet/agent.ts';
import type { Broadcast, Message } from '../messages/message.ts';
import { builder } from './builder.ts';
import { encodeNodeId } from './node-ids.ts';

/** The types that refer to each other, named here and implemented each in its own file. */

export const AgentRef = builder.objectRef<Agent>('Agent');
export const MessageRef = builder.objectRef<Message>('Message');
export const BroadcastRef = builder.objectRef<Broadcast>('Broadcast');
export const EventRef = builder.interfaceRef<StoredEvent>('Event');
export const AnomalyEventRef = builder.objectRef<StoredEvent>('AnomalyEvent');
export const ThreatEventRef = builder.objectRef<StoredEvent>('ThreatEvent');
export const ProcessEventRef = builder.objectRef<StoredEvent>('ProcessEvent');
export const GenericEventRef = builder.objectRef<StoredEvent>('GenericEvent');
export const StreamGapRef = builder.objectRef<StreamGap>('StreamGap');

export type NodeValue = Agent | Message | Broadcast | StoredEvent;

export const NodeRef = builder.interfaceRef<NodeValue>('Node').implement({
  resolveType: typeNameOf,
  fields: (t) => ({
    id: t.id({
      resolve: (value) => {
        const { typeName, id } = nodeNameOf(value);
        return encodeNodeId(typeName, id);
      },
    }),
  }),
});

/** Which GraphQL type shows events of this kind. */
export function eventTypeName(kind: EventKind): string {
  if (kind === 'anomalies') return 'AnomalyEvent';
  if (kind === 'threats') return 'ThreatEvent';
  return kind === 'processes' ? 'ProcessEvent' : 'GenericEvent';
}

/** The GraphQL type that shows the object. */
export function typeNameOf(value: NodeValue): string {
  return nodeNameOf(value).typeName;
}

function nodeNameOf(value: NodeValue): { typeName: string; id: string } {
  if ('position' in value) return { typeName: eventTypeName(value.kind), id: String(value.position) };
  if ('uid' in value) return { typeName: 'Agent', id: value.uid };
  return { typeName: 'payload' in value ? 'Message' : 'Broadcast', id: value.id };
}
