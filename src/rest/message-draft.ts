import { z } from '@hono/zod-openapi';
import { commandKinds, parseCommandChannel } from '../agent-gateway/wire/channels.ts';
import { AegisError } from '../errors.ts';
import { type CommandKind, type MessageDraft, type MessageType, messageTypes } from '../messages/message.ts';
import { anyJson, nameText } from './fields.ts';

/** The body of both `send` and `broadcast`, which differ in the type that a message has unless it says one. */
export function draftSchema(defaultType: MessageType) {
  return z.object({
    channel: z.string().openapi({
      description: `\`<kind>\`, \`backend.<kind>\` or \`backend.<id>.<kind>\`; kinds: ${commandKinds.join(', ')}.`,
      example: 'policies',
    }),
    message: anyJson
      .refine((value) => value !== undefined && value !== null, 'must be given, and not null')
      .openapi({ description: 'Any JSON but null, a plain text too.' }),
    message_type: z.enum(messageTypes).default(defaultType),
  });
}

export const idempotencyHeader = z.object({
  'Idempotency-Key': nameText
    .optional()
    .openapi({ description: 'The same key again gives back the same message and sends nothing.' }),
});

/** A channel as a caller names it; `agentRef` is null where it names no agent. Throws CHANNEL_UNKNOWN. */
export function commandChannel(channel: string): { kind: CommandKind; agentRef: string | null } {
  const parsed = parseCommandChannel(channel);
  if (parsed === null) throw new AegisError('CHANNEL_UNKNOWN');
  return parsed;
}

/** The draft that a body and its idempotency key make. */
export function messageDraft(
  kind: CommandKind,
  body: z.infer<ReturnType<typeof draftSchema>>,
  idempotencyKey: string | undefined,
): MessageDraft {
  return { kind, payload: body.message, type: body.message_type, idempotencyKey };
}
