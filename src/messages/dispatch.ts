import type { Bus } from '../bus/bus.ts';
import { type Clock, repeat } from '../clock.ts';
import { groupBy } from '../group-by.ts';
import type { CommandLink, Confirmation, WrittenCommand } from './command-link.ts';
import type { Message } from './message.ts';
import { createOutcomes, type Outcome } from './outcomes.ts';
import type { Claim, Claims, Transitions } from './transitions.ts';

/** Brings messages from the database to the links of this instance. */
export interface Dispatch {
  /** The link can carry commands from now on; what waits for its agent is sent. */
  attach(link: CommandLink): void;
  detach(link: CommandLink): void;
  start(): void;
  /** Sends nothing more, and resolves when what is in hand is written down, after a second at most. */
  stop(): Promise<void>;
}

/** One statement claims for so many agents, and about so many bytes. */
const maxAgentsAtOnce = 200;
const maxBytesAtOnce = 4 * 1024 * 1024;
/** So many claims are under way at once on a real Postgres: no agent waits behind a slow batch of others. */
const maxRounds = 3;
const pollIntervalMs = 3_000;
const expiryIntervalMs = 1_000;
const maxExpiredAtOnce = 200;
const firstRetryDelayMs = 1_000;
const maxRetryDelayMs = 30_000;
const stopTimeoutMs = 1_000;
/** So long another gateway may take to write down that its link's agent has read something, while the agent has come here. */
const lastConfirmationMs = 1_500;

export function createDispatch(deps: {
  readonly transitions: Transitions;
  readonly bus: Bus;
  /** Tells everyone of messages that have changed. */
  readonly announce: (changed: readonly Message[]) => void;
  readonly clock: Clock;
  /** Milliseconds since some moment, on a clock that nobody sets. */
  readonly monotonicMs: () => number;
  /** From 0 to 1. */
  readonly random: () => number;
  /** Whether the database has one connection. */
  readonly isEmbedded: boolean;
  readonly logError: (error: unknown, context: string) => void;
}): Dispatch {
  const { transitions, bus, clock, monotonicMs } = deps;
  const outcomes = createOutcomes({ ...deps, publish });
  const links = new Map<string, CommandLink>();
  /** Agents that messages may wait for. */
  const due = new Set<string>();
  /** The same, of whom there may be very many: whoever is in `due` goes first, so that no command waits for a broadcast. */
  const dueLater = new Set<string>();
  /**
   * Agents for whom messages are being claimed, or whose messages have an outcome that is not written down yet: the next ones
   * wait, so that order holds, and what an older link has under way is not sent again before its answer can come.
   */
  const busy = new Set<string>();
  /** Busy agents for whom there may be more by now. */
  const again = new Set<string>();
  /** Links whose agents may have unconfirmed messages of an earlier link. */
  const fresh = new Map<string, CommandLink>();
  /** Links that may have claimed something without having been told. */
  const doubtful = new Map<string, CommandLink>();
  /** Agents to whom an earlier link elsewhere has sent something that it may confirm yet. */
  const awaited = new Set<string>();
  let cancelWait = () => {};
  /** Agents that have been busy at some moment since the last look around. */
  let stirred = new Set<string>();
  const underWay = new Set<Promise<void>>();
  const releases: (() => void)[] = [];
  let rounds = 0;
  let isWakeScheduled = false;
  let isLooking = false;
  let isLookWanted = false;
  let isStopped = false;

  function wake(agentUids: Iterable<string>, queue = due): void {
    for (const uid of agentUids) if (links.has(uid)) (busy.has(uid) ? again : queue).add(uid);
    while (!isStopped && rounds < (deps.isEmbedded ? 1 : maxRounds)) {
      const batch = takeDue();
      if (batch.length === 0) return;
      track(round(batch));
    }
  }

  /** After this turn of the event loop: those who are let in together are looked after together. */
  function wakeSoon(): void {
    if (isWakeScheduled) return;
    isWakeScheduled = true;
    setImmediate(() => {
      isWakeScheduled = false;
      wake([]);
    });
  }

  /** The agent can be sent to anew; whether it is worth looking, besides what was heard meanwhile, is `isLikely`. */
  function free(agentUid: string, isLikely: boolean): void {
    busy.delete(agentUid);
    if (again.delete(agentUid) || isLikely) wake([agentUid]);
  }

  /** `work` never rejects. */
  function track(work: Promise<void>): void {
    underWay.add(work);
    void work.finally(() => underWay.delete(work));
  }

  function takeDue(): CommandLink[] {
    const batch: CommandLink[] = [];
    for (const queue of [due, dueLater])
      for (const uid of queue) {
        if (batch.length === maxAgentsAtOnce) return batch;
        due.delete(uid);
        dueLater.delete(uid);
        const link = links.get(uid);
        if (link) batch.push(link);
      }
    return batch;
  }

  /** Claims what waits for these links' agents, and has it written. */
  async function round(batch: readonly CommandLink[]): Promise<void> {
    rounds++;
    for (const { agentUid } of batch) {
      busy.add(agentUid);
      stirred.add(agentUid);
    }
    let claims = new Map<string, Claim[]>();
    let heldUp: ReadonlySet<string> = new Set();
    let isCutShort = false;
    let expectant = batch;
    const claimants = () =>
      expectant.filter((link) => links.get(link.agentUid) === link && link.canWrite && !awaited.has(link.agentUid));
    try {
      expectant = await withoutIdle(batch);
      await takeBack(expectant);
      const askedAtMs = monotonicMs();
      const claimed = await claim(claimants());
      isCutShort = bytesOf(claimed.claims) >= maxBytesAtOnce;
      claims = groupBy(claimed.claims, ({ message }) => message.agentUid);
      ({ heldUp } = claimed);
      for (const link of batch) if (heldUp.has(link.agentUid)) doubt(link);
      for (const link of batch) deliver(link, claims.get(link.agentUid) ?? [], askedAtMs);
      publish(claimed.claims.map(({ message }) => message));
    } catch (error) {
      deps.logError(error, 'messages could not be dispatched');
    }
    rounds--;
    for (const { agentUid } of batch) if (!claims.has(agentUid)) free(agentUid, isCutShort || heldUp.has(agentUid));
    wake([]);
  }

  /** Most agents that come have nothing that waits for them, which one cheap look tells of all of them. */
  async function withoutIdle(batch: readonly CommandLink[]): Promise<readonly CommandLink[]> {
    const newer = batch.filter((link) => fresh.get(link.agentUid) === link);
    if (newer.length === 0) return batch;
    const expectant = await transitions.withOpen(newer);
    const idle = new Set(newer.filter(({ agentUid }) => !expectant.has(agentUid)));
    for (const link of idle) if (fresh.get(link.agentUid) === link) fresh.delete(link.agentUid);
    return batch.filter((link) => !idle.has(link));
  }

  /** What earlier links left behind, and what was claimed without an answer. */
  async function takeBack(batch: readonly CommandLink[]): Promise<void> {
    const recovering = batch.filter((link) => fresh.get(link.agentUid) === link);
    if (recovering.length > 0) await recover(recovering);
    const doubted = batch.flatMap(({ agentUid }) => doubtful.get(agentUid) ?? []);
    if (doubted.length > 0) publish(await transitions.releaseAll(doubted));
    for (const link of doubted) if (doubtful.get(link.agentUid) === link) doubtful.delete(link.agentUid);
  }

  async function recover(newer: readonly CommandLink[]): Promise<void> {
    const found = await transitions.recover(newer, lastConfirmationMs);
    publish(found.recovered);
    for (const link of newer) {
      const { agentUid } = link;
      if (found.awaited.has(agentUid)) awaited.add(agentUid);
      else awaited.delete(agentUid);
      if (!awaited.has(agentUid) && fresh.get(agentUid) === link) fresh.delete(agentUid);
    }
    if (found.awaited.size > 0) lookAgainAtAwaited();
  }

  /** Nothing is claimed for them meanwhile, so that order holds. */
  function lookAgainAtAwaited(): void {
    cancelWait();
    cancelWait = clock.after(lastConfirmationMs, () => wake([...awaited]));
  }

  /** Something that was sent to its agent is in nobody's hands here: an earlier link's, or of a claim that was given up. */
  function doubt(link: CommandLink): void {
    if (links.get(link.agentUid) === link) fresh.set(link.agentUid, link);
    doubtful.set(link.agentUid, link);
  }

  async function claim(claimants: readonly CommandLink[]): Promise<Claims> {
    if (claimants.length === 0) return { claims: [], heldUp: new Set() };
    try {
      return await transitions.claim(claimants, maxBytesAtOnce);
    } catch (error) {
      // Nobody knows whether it was committed; nothing was written, so it is taken back in any case.
      for (const link of claimants) doubtful.set(link.agentUid, link);
      throw error;
    }
  }

  function deliver(link: CommandLink, claims: readonly Claim[], askedAtMs: number): void {
    if (claims.length === 0) return;
    const written = write(
      link,
      claims.filter(({ isHeldUp }) => !isHeldUp),
      askedAtMs,
    );
    track(
      Promise.all(claims.map(({ message }, index) => settle(link, message, written[index] ?? null))).then((outcomes) =>
        free(link.agentUid, claims.length >= link.maxBatch || outcomes.some((outcome) => outcome !== 'read')),
      ),
    );
  }

  function write(link: CommandLink, claims: readonly Claim[], askedAtMs: number): readonly (WrittenCommand | null)[] {
    if (claims.length === 0 || links.get(link.agentUid) !== link || !link.canWrite) return [];
    const commands = claims.map(({ message: { id, type, kind, payload, traceparent }, expiresInMs }) => ({
      ...{ id, type, kind, payload, traceparent },
      // From before the question: the database counted from some moment after it.
      get expiresInMs() {
        return expiresInMs - (monotonicMs() - askedAtMs);
      },
    }));
    try {
      return link.write(commands);
    } catch (error) {
      deps.logError(error, 'messages could not be written to their agent');
      // Nobody knows how far it came.
      return claims.map(() => ({ frame: null, confirmation: Promise.resolve('unread') }));
    }
  }

  async function settle(link: CommandLink, message: Message, written: WrittenCommand | null): Promise<Outcome> {
    const confirmation = written ? await confirmationOf(written) : 'unwritten';
    const isRefused = typeof confirmation === 'object';
    const outcome = isRefused ? 'refused' : confirmation;
    await outcomes.settle(outcome, {
      id: message.id,
      epoch: link.epoch,
      revision: message.revision,
      frame: written?.frame ?? null,
      retryDelayMs: outcome === 'unread' ? backoffMs(message.attempts) : 0,
      refusal: isRefused ? confirmation.refused : null,
    });
    return outcome;
  }

  async function confirmationOf(written: WrittenCommand): Promise<Confirmation> {
    try {
      return await written.confirmation;
    } catch (error) {
      deps.logError(error, 'an agent could not be asked whether it has read its messages');
      return 'unread';
    }
  }

  /** Jitter over an exponential: half of it at least, so that a retry is never at once. */
  function backoffMs(attempts: number): number {
    const ceiling = Math.min(maxRetryDelayMs, firstRetryDelayMs * 2 ** Math.min(attempts, 10));
    return Math.round(ceiling * (0.5 + deps.random() / 2));
  }

  function publish(messages: readonly Message[]): void {
    if (messages.length === 0) return;
    deps.announce(messages);
    // What a link here has given up, another gateway may have the link for.
    const elsewhere = messages.filter(({ status, agentUid }) => status === 'pending' && !links.has(agentUid));
    if (elsewhere.length > 0) bus.publish('queued', { agentUids: elsewhere.map(({ agentUid }) => agentUid) });
  }

  async function expire(): Promise<void> {
    let expired: readonly Message[];
    do {
      expired = await transitions.expire(maxExpiredAtOnce);
      publish(expired);
    } while (expired.length === maxExpiredAtOnce && !isStopped);
  }

  /** What a lost hint or a failing database left behind, and what is due for another attempt. */
  async function lookAround(): Promise<void> {
    await outcomes.retry();
    wake([...fresh.keys(), ...doubtful.keys()], dueLater);
    if (links.size === 0) return;
    stirred = new Set(busy);
    const asked = new Map(links);
    const unsettled = await transitions.unsettled([...asked.values()]);
    for (const { uid, isClaimed } of unsettled) {
      const link = asked.get(uid);
      // Nobody is at work for it: a claim has been committed after its answer was given up for lost.
      if (isClaimed && link && !stirred.has(uid) && links.get(uid) === link) doubtful.set(uid, link);
    }
    wake(
      unsettled.map(({ uid }) => uid),
      dueLater,
    );
  }

  /** One look at a time; asked for meanwhile, it looks once more, since it may have looked too early. */
  async function look(): Promise<void> {
    isLookWanted = true;
    if (isLooking) return;
    isLooking = true;
    try {
      while (isLookWanted && !isStopped) {
        isLookWanted = false;
        await lookAround();
      }
    } catch (error) {
      deps.logError(error, 'waiting messages could not be looked for');
    } finally {
      isLooking = false;
    }
  }

  return {
    attach(link) {
      links.set(link.agentUid, link);
      fresh.set(link.agentUid, link);
      (busy.has(link.agentUid) ? again : dueLater).add(link.agentUid);
      wakeSoon();
    },
    detach(link) {
      if (links.get(link.agentUid) !== link) return;
      links.delete(link.agentUid);
      fresh.delete(link.agentUid);
      awaited.delete(link.agentUid);
    },
    start() {
      releases.push(
        bus.subscribe('queued', ({ agentUids }) => wake(agentUids)),
        bus.subscribe('queuedForMany', () => track(look())),
        bus.subscribe('missed', () => track(look())),
        clock.every(pollIntervalMs, () => track(look())),
        repeat(clock, expiryIntervalMs, expire, (error) => deps.logError(error, 'messages could not be expired')),
      );
    },
    async stop() {
      for (const release of releases.splice(0)) release();
      cancelWait();
      isStopped = true;
      if (underWay.size === 0) return;
      let cancel = () => {};
      const timeout = new Promise<void>((resolve) => {
        cancel = clock.after(stopTimeoutMs, resolve);
      });
      await Promise.race([Promise.all(underWay), timeout]);
      cancel();
    },
  };
}

function bytesOf(claims: readonly Claim[]): number {
  return claims.reduce((bytes, claim) => bytes + claim.payloadBytes, 0);
}
