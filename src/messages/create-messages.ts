import { createHash } from 'node:crypto';
import type { Scope } from '../access/scope.ts';
import type { Changer } from '../audit/actor.ts';
import type { Bus } from '../bus/bus.ts';
import type { Clock } from '../clock.ts';
import type { Database } from '../db/database.ts';
import { AegisError } from '../errors.ts';
import { groupBy } from '../group-by.ts';
import { decodeNumericCursor, encodeCursor, type Page, pageOf } from '../paging.ts';
import { createAcceptanceQueries } from './acceptance-queries.ts';
import { createAcceptances } from './acceptances.ts';
import { createBroadcastTransitions } from './broadcast-transitions.ts';
import { createBroadcasts } from './broadcasts.ts';
import { createDispatch, type Dispatch } from './dispatch.ts';
import { isFinal, type Message, type MessageDraft, messagePriorities } from './message.ts';
import type { Messages } from './messages.ts';
import { createMessageQueries, type NewMessage } from './queries.ts';
import { createRetention } from './retention.ts';
import { createTransitions } from './transitions.ts';
import { createUpdateQueries } from './update-queries.ts';
import { createMessageUpdates } from './updates.ts';
import { createUpkeep, type Upkeep } from './upkeep.ts';

/** The messages part: what consumers call, what links attach to, what goes on by itself. */
export interface MessagesPart {
  readonly messages: Messages;
  readonly dispatch: Dispatch;
  readonly upkeep: Upkeep;
}

/** What a message may say at most, as JSON. */
export const maxPayloadBytes = 256 * 1024;

/** While they are under way, what is asked for gathers for the next one. */
const acceptingStatements = 2;

export function createMessages(deps: {
  readonly database: Database;
  readonly bus: Bus;
  readonly clock: Clock;
  /** Milliseconds since some moment, on a clock that nobody sets. */
  readonly monotonicMs: () => number;
  readonly random: () => number;
  /** Where a name is looked for first. */
  readonly defaultOrg: string;
  /** Messages of one agent that are not final. */
  readonly queueSize: number;
  readonly retryAttempts: number;
  readonly ttlMs: number;
  /** How long a message is kept after it has become final. */
  readonly retentionMs: number;
  /** Called with every change that this instance makes. */
  readonly onChanged: (changed: readonly Message[]) => void;
  readonly logError: (error: unknown, context: string) => void;
}): MessagesPart {
  const { bus, clock, queueSize } = deps;
  const queries = createMessageQueries(deps.database);
  const acceptanceQueries = createAcceptanceQueries(deps.database, deps.defaultOrg, queueSize);
  const acceptances = createAcceptances(acceptanceQueries, deps.database.embedded ? 1 : acceptingStatements);
  const transitions = createTransitions(deps.database.sql);
  const updates = createMessageUpdates({ ...deps, queries: createUpdateQueries(deps.database) });
  const dispatch = createDispatch({ ...deps, isEmbedded: deps.database.embedded, transitions, announce });
  const broadcastTransitions = createBroadcastTransitions(deps.database.sql);
  const retention = createRetention(deps.database.sql, deps.retentionMs);
  const upkeep = createUpkeep({ ...deps, transitions: broadcastTransitions, retention, announce });

  function announce(changed: readonly Message[]): void {
    bus.publish('messages', changed);
    deps.onChanged(changed);
  }

  const cursorOf = (message: Message) => encodeCursor('message', message.sequence);

  const keyOf = (cursor: string) => decodeNumericCursor('message', cursor);

  const broadcasts = createBroadcasts({
    ...{ ...deps, announce, newMessage, keyOf },
    transitions: broadcastTransitions,
    maxOpen: queueSize,
    hurry: upkeep.hurry,
  });

  /** `target` is what the draft is sent to, as far as an idempotency key must tell one request from another. */
  function newMessage(draft: MessageDraft, target: unknown): NewMessage {
    const payloadText = JSON.stringify(draft.payload);
    if (payloadText === undefined) throw new AegisError('BAD_USER_INPUT', 'The payload is not JSON');
    if (Buffer.byteLength(payloadText) > maxPayloadBytes)
      throw new AegisError('PAYLOAD_TOO_LARGE', `A payload has at most ${maxPayloadBytes} bytes`);
    const { kind, type, priority = 'normal', ttlSeconds, maxRetries, idempotencyKey } = draft;
    const request = JSON.stringify([kind, type, priority, ttlSeconds ?? null, maxRetries ?? null, payloadText, target]);
    return {
      kind,
      type,
      priorityRank: messagePriorities.indexOf(priority),
      // Postgres text takes no NUL; JSON can always say it as an escape, which JSON.stringify has done.
      payloadText,
      maxRetries: maxRetries ?? deps.retryAttempts,
      ttlMs: ttlSeconds === undefined ? deps.ttlMs : ttlSeconds * 1_000,
      idempotencyKey: idempotencyKey ?? null,
      requestHash: createHash('sha256').update(request).digest('hex'),
    };
  }

  async function send(by: Changer, agentRef: string, draft: MessageDraft): Promise<Message> {
    const message = newMessage(draft, null);
    const acceptance = await acceptances.accept({ by, agentRef, message });
    if ('refused' in acceptance) throw new AegisError(acceptance.refused);
    const accepted = 'accepted' in acceptance ? acceptance.accepted : await earlierMessage(by, acceptance, message);
    if ('accepted' in acceptance) announce([accepted]);
    // Also for an earlier one: perhaps nobody was told of it, since its sender was not.
    if (accepted.status === 'pending') bus.publish('queued', { agentUids: [accepted.agentUid] });
    return accepted;
  }

  /** The message that an idempotency key stands for already. Throws IDEMPOTENCY_CONFLICT where it said something else. */
  async function earlierMessage(
    scope: Scope,
    to: { readonly orgId: string; readonly agentUid: string },
    message: NewMessage,
  ): Promise<Message> {
    const earlier = await acceptanceQueries.findByIdempotencyKey(scope, to.orgId, message.idempotencyKey ?? '');
    if (!earlier) throw new Error('a message was neither accepted nor known');
    const isSame = earlier.requestHash === message.requestHash && earlier.message.agentUid === to.agentUid;
    if (!isSame) throw new AegisError('IDEMPOTENCY_CONFLICT');
    return earlier.message;
  }

  async function untilWritten(message: Message, timeoutMs: number): Promise<Message> {
    if (message.status !== 'pending') return message;
    let settle: (found: Message) => void = () => {};
    const changed = new Promise<Message>((resolve) => (settle = resolve));
    // The message is accepted: a database that fails now must not make it look refused.
    const readAgain = () =>
      queries.find({ orgId: null }, message.id).then(
        (found) => found ?? message,
        () => message,
      );
    const release = updates.watch(message.id, (update) => {
      if (update.status !== 'pending') settle(update);
    });
    const cancel = clock.after(timeoutMs, () => void readAgain().then(settle));
    try {
      // It may have been written before anyone listened.
      const current = await readAgain();
      return current.status === 'pending' ? await changed : current;
    } finally {
      cancel();
      release();
    }
  }

  const messages: Messages = {
    ...broadcasts,
    send,
    async cancel(by, messageId) {
      const known = await queries.find(by, messageId);
      if (!known) throw new AegisError('MESSAGE_NOT_FOUND');
      const cancelled = isFinal(known.status) ? null : await transitions.cancel(deps.database.as(by), by, known.id);
      if (!cancelled) throw new AegisError('MESSAGE_FINAL');
      announce([cancelled]);
      return cancelled;
    },
    find: (scope, messageId) => queries.find(scope, messageId),
    async pageByAgent(scope, agentUids, statuses, range) {
      const found = groupBy(
        await queries.pageByAgent(scope, agentUids, statuses, range),
        (message) => message.agentUid,
      );
      return new Map<string, Page<Message>>(agentUids.map((uid) => [uid, pageOf(range, found.get(uid) ?? [])]));
    },
    countByAgent: (scope, agentUids, statuses) => queries.countByAgent(scope, agentUids, statuses),
    cursorOf,
    keyOf,
    untilWritten,
    updates: (scope, subject, signal) => updates.follow(scope, subject, signal),
  };
  return { messages, dispatch, upkeep };
}
