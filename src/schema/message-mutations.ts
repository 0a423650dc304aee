import { AegisError } from '../errors.ts';
import type { Broadcast, CommandKind, Message, MessageDraft } from '../messages/message.ts';
import { changing } from './agent-mutations.ts';
import { AgentFilterInput } from './agents.ts';
import { builder } from './builder.ts';
import { CommandChannel, MessagePriority, MessageType } from './enums.ts';
import { agentFilterOf, checkBounds } from './inputs.ts';
import { agentRefOf, idOf, isUuid } from './node-ids.ts';
import { BroadcastRef, MessageRef } from './refs.ts';

const SendMessageInput = builder.inputType('SendMessageInput', {
  fields: (t) => ({
    agentId: t.id({ required: true }),
    channel: t.field({ type: CommandChannel, required: true }),
    payload: t.field({ type: 'JSON', required: true }),
    type: t.field({ type: MessageType, defaultValue: 'request' }),
    priority: t.field({ type: MessagePriority, defaultValue: 'normal' }),
    ttl: t.int({ description: "Seconds; the gateway's MESSAGE_TTL where absent." }),
    maxRetries: t.int({ description: "The gateway's MESSAGE_RETRY_ATTEMPTS where absent." }),
    idempotencyKey: t.string({
      description:
        'The same key again, while its message is kept, gives back the same message and sends nothing; with another body it is an error.',
    }),
  }),
});

const BroadcastInput = builder.inputType('BroadcastInput', {
  fields: (t) => ({
    channel: t.field({ type: CommandChannel, required: true }),
    payload: t.field({ type: 'JSON', required: true }),
    type: t.field({ type: MessageType, defaultValue: 'event' }),
    priority: t.field({ type: MessagePriority, defaultValue: 'normal' }),
    ttl: t.int(),
    maxRetries: t.int(),
    idempotencyKey: t.string(),
    ratePerSecond: t.int({ description: 'Messages that may go out in each second; all at once where absent.' }),
    abortAtFailurePercent: t.int({
      description:
        'Takes back what is left once so many percent of the results (10 at least) are FAILED or EXPIRED; never where absent.',
    }),
    filter: t.field({
      type: AgentFilterInput,
      description: "All approved agents of the caller's organisation where absent.",
    }),
  }),
});

const SendMessagePayload = builder.objectRef<{ readonly message: Message }>('SendMessagePayload').implement({
  fields: (t) => ({
    // Whoever sends it may see it.
    message: t.expose('message', { type: MessageRef, needs: 'messages:send' }),
  }),
});

const BroadcastPayload = builder.objectRef<{ readonly broadcast: Broadcast }>('BroadcastPayload').implement({
  fields: (t) => ({ broadcast: t.expose('broadcast', { type: BroadcastRef, needs: 'messages:send' }) }),
});

interface DraftInput {
  readonly channel: CommandKind;
  readonly payload?: unknown;
  readonly type?: MessageDraft['type'] | null | undefined;
  readonly priority?: MessageDraft['priority'] | null | undefined;
  readonly ttl?: number | null | undefined;
  readonly maxRetries?: number | null | undefined;
  readonly idempotencyKey?: string | null | undefined;
}

/** Throws BAD_USER_INPUT. */
function draftOf(input: DraftInput, defaultType: MessageDraft['type']): MessageDraft {
  const { channel, payload, type, priority, ttl, maxRetries, idempotencyKey } = input;
  // `channel` is an enum here, a name elsewhere.
  checkBounds({ ttl, maxRetries, idempotencyKey });
  return {
    kind: channel,
    payload,
    type: type ?? defaultType,
    priority: priority ?? undefined,
    ttlSeconds: ttl ?? undefined,
    maxRetries: maxRetries ?? undefined,
    idempotencyKey: idempotencyKey ?? undefined,
  };
}

builder.mutationFields((t) => ({
  sendMessage: t.field({
    type: SendMessagePayload,
    needs: 'messages:send',
    args: { input: t.arg({ type: SendMessageInput, required: true }) },
    resolve: (_root, { input }, context) => {
      checkBounds({ agentId: input.agentId });
      const draft = draftOf(input, 'request');
      return changing(context, async () => ({
        message: await context.messages.send(context.consumer, agentRefOf(input.agentId), draft),
      }));
    },
  }),
  broadcast: t.field({
    type: BroadcastPayload,
    needs: 'messages:send',
    args: { input: t.arg({ type: BroadcastInput, required: true }) },
    resolve: (_root, { input }, context) => {
      const draft = draftOf(input, 'event');
      const filter = agentFilterOf(input.filter);
      const { ratePerSecond, abortAtFailurePercent } = input;
      checkBounds({ ratePerSecond, abortAtFailurePercent });
      const pace = {
        ratePerSecond: ratePerSecond ?? undefined,
        abortAtFailurePercent: abortAtFailurePercent ?? undefined,
      };
      return changing(context, async () => ({
        broadcast: await context.messages.broadcast(context.consumer, draft, filter, pace),
      }));
    },
  }),
  cancelBroadcast: t.field({
    type: BroadcastRef,
    needs: 'messages:send',
    description: 'Takes back what no agent has confirmed, a batch after the other, until the broadcast is CANCELLED.',
    args: { id: t.arg.id({ required: true }) },
    resolve: (_root, args, context) => {
      checkBounds(args);
      const id = idOf('Broadcast', args.id);
      if (id === null || !isUuid(id)) throw new AegisError('NOT_FOUND', 'No such broadcast');
      return changing(context, () => context.messages.cancelBroadcast(context.consumer, id));
    },
  }),
  cancelMessage: t.field({
    type: MessageRef,
    needs: 'messages:send',
    args: { id: t.arg.id({ required: true }) },
    resolve: (_root, args, context) => {
      checkBounds(args);
      const id = idOf('Message', args.id);
      if (id === null || !isUuid(id)) throw new AegisError('MESSAGE_NOT_FOUND');
      return changing(context, () => context.messages.cancel(context.consumer, id));
    },
  }),
}));
