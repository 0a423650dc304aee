import { commandChannelName, shortCommandChannelName } from '../agent-gateway/wire/channels.ts';
import { type BroadcastProgress, lifeOf, type Transition } from '../messages/message.ts';
import { keysetRange } from '../paging.ts';
import { builder } from './builder.ts';
import { countedConnectionOf, MessageConnection } from './connections.ts';
import { BroadcastState, MessagePriority, MessageStatus, MessageType } from './enums.ts';
import { checkBounds } from './inputs.ts';
import { idOf, isUuid } from './node-ids.ts';
import { AgentRef, BroadcastRef, EventRef, MessageRef, NodeRef } from './refs.ts';

const MessageTransitionRef = builder.objectRef<Transition>('MessageTransition').implement({
  description: 'A change of a message, and how it stood right after.',
  fields: (t) => ({
    status: t.expose('status', { type: MessageStatus }),
    at: t.expose('at', { type: 'DateTime' }),
    attempts: t.exposeInt('attempts'),
    failure: t.exposeString('failure', { nullable: true }),
  }),
});

MessageRef.implement({
  needs: 'messages:read',
  interfaces: [NodeRef],
  fields: (t) => ({
    agentId: t.exposeString('agentName'),
    agent: t.field({
      type: AgentRef,
      nullable: true,
      resolve: (message, _args, { loaders }) => loaders.agents.load(message.agentUid),
    }),
    channel: t.string({
      description: 'Long form: backend.<agentId>.<channel>',
      resolve: (message) => commandChannelName(message.agentName, message.kind),
    }),
    type: t.expose('type', { type: MessageType }),
    priority: t.expose('priority', { type: MessagePriority }),
    status: t.expose('status', { type: MessageStatus }),
    payload: t.expose('payload', { type: 'JSON' }),
    attempts: t.exposeInt('attempts'),
    maxRetries: t.exposeInt('maxRetries'),
    createdAt: t.expose('createdAt', { type: 'DateTime' }),
    sentAt: t.expose('sentAt', { type: 'DateTime', nullable: true }),
    deliveredAt: t.expose('deliveredAt', { type: 'DateTime', nullable: true }),
    expiresAt: t.expose('expiresAt', { type: 'DateTime' }),
    failure: t.exposeString('failure', { nullable: true, description: 'Why it failed, for an operator to read.' }),
    history: t.field({
      type: [MessageTransitionRef],
      description:
        'Its acceptance and what has become of it since, oldest first; of very long histories the latest 32 changes.',
      resolve: lifeOf,
    }),
    replies: t.field({
      type: [EventRef],
      description: 'What the agent answered, oldest first.',
      resolve: async (message, _args, { loaders }) => {
        const replies = await loaders.replies.load(message.id);
        // Any agent can say that it answers this message; only the one it was sent to does.
        return replies.filter((event) => event.trusted && event.agentUid === message.agentUid);
      },
    }),
    broadcast: t.field({
      type: BroadcastRef,
      nullable: true,
      resolve: (message, _args, { loaders }) =>
        message.broadcastId === null ? null : loaders.broadcasts.load(message.broadcastId),
    }),
  }),
});

const BroadcastProgressRef = builder.objectRef<BroadcastProgress>('BroadcastProgress').implement({
  fields: (t) => ({
    targets: t.exposeInt('targets'),
    queued: t.exposeInt('queued'),
    sent: t.exposeInt('sent'),
    delivered: t.exposeInt('delivered'),
    failed: t.exposeInt('failed'),
    expired: t.exposeInt('expired'),
    cancelled: t.exposeInt('cancelled'),
  }),
});

BroadcastRef.implement({
  needs: 'messages:read',
  interfaces: [NodeRef],
  fields: (t) => ({
    channel: t.string({
      description: 'Short form: backend.<channel>',
      resolve: (broadcast) => shortCommandChannelName(broadcast.kind),
    }),
    createdAt: t.expose('createdAt', { type: 'DateTime' }),
    state: t.expose('state', { type: BroadcastState }),
    abortedReason: t.exposeString('abortedReason', {
      nullable: true,
      description: 'Why it was stopped, for an operator to read; null unless it is ABORTING or ABORTED.',
    }),
    ratePerSecond: t.exposeInt('ratePerSecond', { nullable: true }),
    abortAtFailurePercent: t.exposeInt('abortAtFailurePercent', { nullable: true }),
    progress: t.field({
      type: BroadcastProgressRef,
      resolve: (broadcast, _args, { loaders }) => loaders.progress.load(broadcast.id),
    }),
    messages: t.field({
      type: MessageConnection,
      args: { status: t.arg({ type: [MessageStatus] }), ...t.arg.connectionArgs() },
      resolve: (broadcast, args, { messages, consumer }) => {
        checkBounds(args);
        keysetRange(args, messages.keyOf);
        const statuses = args.status ?? undefined;
        return countedConnectionOf(
          () => messages.pageOfBroadcast(consumer, broadcast.id, statuses, args),
          (message) => messages.cursorOf(message),
          () => messages.countOfBroadcast(consumer, broadcast.id, statuses),
        );
      },
    }),
  }),
});

builder.queryFields((t) => ({
  message: t.field({
    type: MessageRef,
    nullable: true,
    needs: 'messages:read',
    args: { id: t.arg.id({ required: true }) },
    resolve: (_root, args, { messages, consumer }) => {
      checkBounds(args);
      const id = idOf('Message', args.id);
      return id !== null && isUuid(id) ? messages.find(consumer, id) : null;
    },
  }),
  broadcast: t.field({
    type: BroadcastRef,
    nullable: true,
    needs: 'messages:read',
    args: { id: t.arg.id({ required: true }) },
    resolve: (_root, args, { messages, consumer }) => {
      checkBounds(args);
      const id = idOf('Broadcast', args.id);
      return id !== null && isUuid(id) ? messages.findBroadcast(consumer, id) : null;
    },
  }),
}));
