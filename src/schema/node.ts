import { requirePermission } from '../access/consumer.ts';
import { builder } from './builder.ts';
import type { ConsumerContext } from './context.ts';
import { checkBounds } from './inputs.ts';
import { decodeNodeId, isUuid, type NodeId } from './node-ids.ts';
import { needOfType } from './permissions.ts';
import { eventTypeName, NodeRef, type NodeValue, typeNameOf } from './refs.ts';

builder.queryField('node', (t) =>
  t.field({
    type: NodeRef,
    nullable: true,
    needs: 'authenticated',
    description: 'Needs what the type of the object that the id names needs.',
    args: { id: t.arg.id({ required: true }) },
    resolve: async (_root, args, context, { schema }) => {
      checkBounds(args);
      const nodeId = isUuid(args.id) ? null : decodeNodeId(args.id);
      const found = isUuid(args.id) ? await findByUuid(args.id, context) : nodeId && (await findNode(nodeId, context));
      const need = found && needOfType(schema, typeNameOf(found));
      if (need) requirePermission(context.consumer, need);
      return found;
    },
  }),
);

/** What a plain UUID names: a message, a broadcast or an agent. */
async function findByUuid(id: string, context: ConsumerContext): Promise<NodeValue | null> {
  const { messages, consumer, loaders } = context;
  return (
    (await messages.find(consumer, id)) ??
    (await messages.findBroadcast(consumer, id)) ??
    loaders.agents.load(id.toLowerCase())
  );
}

async function findNode({ typeName, id }: NodeId, context: ConsumerContext): Promise<NodeValue | null> {
  const { messages, consumer, loaders } = context;
  if (/^\d{1,15}$/.test(id)) return findEvent(typeName, Number(id), context);
  if (!isUuid(id)) return null;
  switch (typeName) {
    case 'Agent':
      return loaders.agents.load(id.toLowerCase());
    case 'Message':
      return messages.find(consumer, id);
    case 'Broadcast':
      return messages.findBroadcast(consumer, id);
    default:
      return null;
  }
}

async function findEvent(typeName: string, position: number, context: ConsumerContext): Promise<NodeValue | null> {
  const [event] = await context.events.findAll(context.consumer, [position]);
  return event && eventTypeName(event.kind) === typeName ? event : null;
}
