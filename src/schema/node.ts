import { builder } from './builder.ts';
import type { ConsumerContext } from './context.ts';
import { checkBounds } from './inputs.ts';
import { decodeNodeId, isUuid, type NodeId } from './node-ids.ts';
import { eventTypeName, NodeRef, type NodeValue } from './refs.ts';

builder.queryField('node', (t) =>
  t.field({
    type: NodeRef,
    nullable: true,
    args: { id: t.arg.id({ required: true }) },
    resolve: (_root, args, context) => {
      checkBounds(args);
      if (isUuid(args.id)) return findByUuid(args.id, context);
      const nodeId = decodeNodeId(args.id);
      return nodeId && findNode(nodeId, context);
    },
  }),
);

/** What a plain UUID names: a message, a broadcast or an agent. */
async function findByUuid(id: string, context: ConsumerContext): Promise<NodeValue | null> {
  const { messages, scope, loaders } = context;
  return (
    (await messages.find(scope, id)) ??
    (await messages.findBroadcast(scope, id)) ??
    loaders.agents.load(id.toLowerCase())
  );
}

async function findNode({ typeName, id }: NodeId, context: ConsumerContext): Promise<NodeValue | null> {
  const { messages, scope, loaders } = context;
  if (/^\d{1,15}$/.test(id)) return findEvent(typeName, Number(id), context);
  if (!isUuid(id)) return null;
  switch (typeName) {
    case 'Agent':
      return loaders.agents.load(id.toLowerCase());
    case 'Message':
      return messages.find(scope, id);
    case 'Broadcast':
      return messages.findBroadcast(scope, id);
    default:
      return null;
  }
}

async function findEvent(typeName: string, position: number, context: ConsumerContext): Promise<NodeValue | null> {
  const [event] = await context.events.findAll(context.scope, [position]);
  return event && eventTypeName(event.kind) === typeName ? event : null;
}
