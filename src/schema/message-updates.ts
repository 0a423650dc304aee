import { AegisError } from '../errors.ts';
import type { MessageSubject } from '../messages/messages.ts';
import { builder } from './builder.ts';
import type { ConsumerContext } from './context.ts';
import { agentUidOf } from './events.ts';
import { checkBounds } from './inputs.ts';
import { idOf, isUuid } from './node-ids.ts';
import { MessageRef } from './refs.ts';
import { streamOf } from './streams.ts';

interface SubjectArguments {
  readonly messageId?: string | null | undefined;
  readonly broadcastId?: string | null | undefined;
  readonly agentId?: string | null | undefined;
}

/** Throws BAD_USER_INPUT unless exactly one is given; MESSAGE_NOT_FOUND, NOT_FOUND, AGENT_NOT_FOUND. */
async function subjectOf(args: SubjectArguments, context: ConsumerContext): Promise<MessageSubject> {
  checkBounds(args);
  const { messageId, broadcastId, agentId } = args;
  const { messages, consumer } = context;
  if ([messageId, broadcastId, agentId].filter((id) => id != null).length !== 1)
    throw new AegisError('BAD_USER_INPUT', 'Give one of `messageId`, `broadcastId` and `agentId`');
  if (messageId != null) {
    const id = idOf('Message', messageId);
    const message = id !== null && isUuid(id) ? await messages.find(consumer, id) : null;
    if (!message) throw new AegisError('MESSAGE_NOT_FOUND');
    return { messageId: message.id };
  }
  if (broadcastId != null) {
    const id = idOf('Broadcast', broadcastId);
    const broadcast = id !== null && isUuid(id) ? await messages.findBroadcast(consumer, id) : null;
    if (!broadcast) throw new AegisError('NOT_FOUND', 'No such broadcast');
    return { broadcastId: broadcast.id };
  }
  return { agentUid: await agentUidOf(agentId ?? '', context) };
}

builder.subscriptionField('messageUpdates', (t) =>
  t.field({
    type: MessageRef,
    needs: 'messages:read',
    description: "Every change of status of one message, of a broadcast's messages, or of an agent's.",
    args: { messageId: t.arg.id(), broadcastId: t.arg.id(), agentId: t.arg.id() },
    subscribe: async (_root, args, context) => {
      const subject = await subjectOf(args, context);
      return streamOf(
        context,
        (signal) => context.messages.updates(context.consumer, subject, signal),
        (message) => message,
      );
    },
    resolve: (message) => message,
  }),
);
