import type { Bus } from '../bus/bus.ts';
import type { Database } from '../db/database.ts';
import { AegisError } from '../errors.ts';
import { keysetRange, pageOf } from '../paging.ts';
import { createBroadcastQueries } from './broadcast-queries.ts';
import { type BroadcastTransitions, batchOf } from './broadcast-transitions.ts';
import type { Broadcast, Message, MessageDraft } from './message.ts';
import type { Messages } from './messages.ts';
import type { NewMessage } from './queries.ts';

/** What the messages of one broadcast may say in all, as JSON: each of them keeps its own copy. */
export const maxBroadcastBytes = 1024 * 1024 * 1024;
const maxAnnouncedAtOnce = 500;

/** The part of `Messages` that is about broadcasts. */
export type Broadcasts = Pick<
  Messages,
  | 'broadcast'
  | 'cancelBroadcast'
  | 'findBroadcast'
  | 'findBroadcasts'
  | 'progress'
  | 'pageOfBroadcast'
  | 'countOfBroadcast'
  | 'outcomesOfBroadcast'
  | 'countUnreachable'
>;

export function createBroadcasts(deps: {
  readonly database: Database;
  readonly bus: Bus;
  readonly transitions: BroadcastTransitions;
  /** Throws where the draft cannot be accepted; `target` is what it is sent to. */
  readonly newMessage: (draft: MessageDraft, target: unknown) => NewMessage;
  readonly keyOf: (cursor: string) => number;
  readonly maxOpen: number;
  readonly announce: (changed: readonly Message[]) => void;
  /** Has upkeep look at once for what there is to do. */
  readonly hurry: () => void;
  readonly logError: (error: unknown, context: string) => void;
}): Broadcasts {
  const queries = createBroadcastQueries(deps.database);

  const broadcast: Broadcasts['broadcast'] = async (by, draft, filter, pace = {}) => {
    const { ratePerSecond, abortAtFailurePercent } = pace;
    const message = deps.newMessage(draft, [filter, ratePerSecond ?? null, abortAtFailurePercent ?? null]);
    const earlier = async (): Promise<Broadcast | null> => {
      if (message.idempotencyKey === null) return null;
      const found = await queries.findByIdempotencyKey(by, message.idempotencyKey);
      if (found && found.requestHash !== message.requestHash) throw new AegisError('IDEMPOTENCY_CONFLICT');
      return found?.broadcast ?? null;
    };
    // First of all: the fleet may have grown, so that the same request would be too large now.
    const known = await earlier();
    if (known) return known;
    const targets = { ...filter, enrollment: filter.enrollment ?? 'approved' };
    const limits = { maxOpen: deps.maxOpen, maxBytes: maxBroadcastBytes };
    const made = await queries.insert(by, targets, message, pace, limits);
    if (made.outcome === 'tooLarge')
      throw new AegisError(
        'PAYLOAD_TOO_LARGE',
        `A broadcast has at most ${maxBroadcastBytes} bytes over all its ${made.targets} messages`,
      );
    if (made.outcome === 'taken') {
      // The same key came twice at once.
      const raced = await earlier();
      if (!raced) throw new Error('a broadcast was neither accepted nor known');
      return raced;
    }
    if (made.queued > 0 && ratePerSecond === undefined) deps.bus.publish('queuedForMany', {});
    if (made.failed > 0)
      announceFailures(made.broadcast).catch((error) =>
        deps.logError(error, 'messages that failed at once could not be announced'),
      );
    return made.broadcast;
  };

  async function announceFailures({ id, payloadBytes }: Broadcast): Promise<void> {
    const limit = batchOf(payloadBytes, maxAnnouncedAtOnce);
    let after = 0;
    for (;;) {
      const failed = await queries.failedAtOnce(id, after, limit);
      const last = failed.at(-1);
      if (!last) return;
      deps.announce(failed);
      after = last.sequence;
    }
  }

  const findBroadcast: Broadcasts['findBroadcast'] = async (scope, broadcastId) => {
    const [found] = await queries.find(scope, [broadcastId]);
    return found ?? null;
  };

  return {
    broadcast,
    async cancelBroadcast(by, broadcastId) {
      const known = await findBroadcast(by, broadcastId);
      if (!known) throw new AegisError('NOT_FOUND', 'No such broadcast');
      const isCancelled = await deps.transitions.cancel(deps.database.as(by), by, known.id);
      if (isCancelled) deps.hurry();
      const current = await findBroadcast(by, broadcastId);
      if (!current) throw new AegisError('NOT_FOUND', 'No such broadcast');
      if (current.state === 'finished')
        throw new AegisError('MESSAGE_FINAL', 'Every message of the broadcast is final');
      return current;
    },
    findBroadcast,
    findBroadcasts: (scope, broadcastIds) => queries.find(scope, broadcastIds),
    async progress(scope, broadcastIds) {
      const none = { targets: 0, queued: 0, sent: 0, delivered: 0, failed: 0, expired: 0, cancelled: 0 };
      const found = await queries.progress(scope, broadcastIds);
      return new Map(broadcastIds.map((id) => [id, found.get(id) ?? none]));
    },
    async pageOfBroadcast(scope, broadcastId, statuses, request) {
      const range = keysetRange(request, deps.keyOf);
      return pageOf(range, await queries.page(scope, broadcastId, statuses, range));
    },
    countOfBroadcast: (scope, broadcastId, statuses) => queries.count(scope, broadcastId, statuses),
    outcomesOfBroadcast: (scope, broadcastId) => queries.outcomes(scope, broadcastId),
    countUnreachable: (scope, broadcastId) => queries.countUnreachable(scope, broadcastId),
  };
}
