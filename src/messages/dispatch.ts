import type { Bus } from '../bus/bus.ts';
import { type Clock, repeat } from '../clock.ts';
import { groupBy } from '../group-by.ts';
import type { CommandKind, Message, MessageType } from './message.ts';
import { createOutcomes, type Outcome } from './outcomes.ts';
import type { Transitions } from './transitions.ts';

/** A frame that a link has made for a message, and what of it is recorded. */
export interface SealedFrame {
  readonly frame: string;
  readonly encryptedPayload: string;
  readonly nonce: string;
  readonly signature: string;
}

/** The side of an agent's link that messages see. Ready from `attach` to `detach`, unless `canWrite` says otherwise. */
export interface CommandLink {
  readonly agentUid: string;
  readonly epoch: number;
  /** Asked right before every write: whether the link is open, owns its agent and may carry commands now. */
  readonly canWrite: boolean;
  seal(message: {
    readonly id: string;
    readonly type: MessageType;
    readonly kind: CommandKind;
    readonly payload: unknown;
  }): SealedFrame;
  write(frame: string): void;
  /** Resolves true when the agent has read everything written before; false when the link ended or did not answer in time. */
  barrier(): Promise<boolean>;
}

/** Brings messages from the database to the links of this instance. */
export interface Dispatch {
  /** The link can carry commands from now on; what waits for its agent is sent. */
  attach(link: CommandLink): void;
  detach(link: CommandLink): void;
  start(): void;
  /** Sends nothing more, and resolves when what is in hand is written down, after a second at most. */
  stop(): Promise<void>;
}

const maxAgentsAtOnce = 200;
const maxMessagesPerAgent = 10;
const pollIntervalMs = 3_000;
const expiryIntervalMs = 1_000;
const maxExpiredAtOnce = 1_000;
const firstRetryDelayMs = 1_000;
const maxRetryDelayMs = 30_000;
const stopTimeoutMs = 1_000;

/** A message and the frame that a link has made for it. */
interface Outgoing {
  readonly link: CommandLink;
  readonly message: Message;
  readonly frame: SealedFrame;
}

export function createDispatch(deps: {
  readonly transitions: Transitions;
  readonly bus: Bus;
  /** Tells everyone of messages that have changed. */
  readonly announce: (changed: readonly Message[]) => void;
  readonly clock: Clock;
  /** From 0 to 1. */
  readonly random: () => number;
  readonly logError: (error: unknown, context: string) => void;
}): Dispatch {
  const { transitions, bus, clock } = deps;
  const outcomes = createOutcomes({ ...deps, publish });
  const links = new Map<string, CommandLink>();
  /** Agents that messages may wait for. */
  const due = new Set<string>();
  /**
   * Agents with messages whose outcome is not written down yet, and over how many links: the next ones wait, so that order
   * holds, and what an older link has under way is not sent again before its answer can come.
   */
  const busy = new Map<string, number>();
  /** Links whose agents may have unconfirmed messages of an earlier link. */
  const fresh = new Map<string, CommandLink>();
  const underWay = new Set<Promise<void>>();
  const releases: (() => void)[] = [];
  let isPumping = false;
  let isStopped = false;

  function wake(agentUids: Iterable<string>): void {
    for (const uid of agentUids) if (links.has(uid)) due.add(uid);
    if (due.size > 0 && !isPumping && !isStopped) track(pump());
  }

  /** `work` never rejects. */
  function track(work: Promise<void>): void {
    underWay.add(work);
    void work.finally(() => underWay.delete(work));
  }

  async function pump(): Promise<void> {
    isPumping = true;
    try {
      for (let batch = takeDue(); batch.length > 0 && !isStopped; batch = takeDue()) {
        await recoverFresh(batch);
        await sendWaiting(batch);
      }
    } catch (error) {
      deps.logError(error, 'messages could not be dispatched');
    } finally {
      isPumping = false;
    }
  }

  function takeDue(): string[] {
    const batch: string[] = [];
    for (const uid of due) {
      if (batch.length === maxAgentsAtOnce) break;
      due.delete(uid);
      // A link that is done wakes its agent again.
      if (links.has(uid) && !busy.has(uid)) batch.push(uid);
    }
    return batch;
  }

  async function recoverFresh(agentUids: readonly string[]): Promise<void> {
    const recovering = agentUids.flatMap((uid) => fresh.get(uid) ?? []);
    if (recovering.length === 0) return;
    publish(await transitions.recover(recovering));
    for (const link of recovering) if (fresh.get(link.agentUid) === link) fresh.delete(link.agentUid);
  }

  async function sendWaiting(agentUids: readonly string[]): Promise<void> {
    const outgoing = sealed(await transitions.waiting(agentUids, maxMessagesPerAgent));
    if (outgoing.length === 0) return;
    const claims = outgoing.map(({ link, message, frame }) => ({ id: message.id, epoch: link.epoch, ...frame }));
    const byLink = groupBy(outgoing, ({ link }) => link);
    let claimed: Map<string, Message>;
    try {
      claimed = new Map((await transitions.claim(claims)).map((message) => [message.id, message]));
    } catch (error) {
      // Nobody knows whether it was committed; nothing was written, so it is taken back in any case.
      for (const [link, entries] of byLink)
        occupy(
          link,
          settle(
            'unwritten',
            link,
            entries.map(({ message }) => message),
          ),
        );
      throw error;
    }
    for (const [link, entries] of byLink) write(link, entries, claimed);
  }

  function sealed(waiting: readonly Message[]): Outgoing[] {
    return waiting.flatMap((message) => {
      const link = links.get(message.agentUid);
      return link?.canWrite ? { link, message, frame: link.seal(message) } : [];
    });
  }

  /** Writes what was claimed, in the order in which it waited. */
  function write(link: CommandLink, entries: readonly Outgoing[], claimed: ReadonlyMap<string, Message>): void {
    const written: Message[] = [];
    const unwritten: Message[] = [];
    for (const { message, frame } of entries) {
      const sent = claimed.get(message.id);
      if (!sent) continue;
      const canWrite = links.get(link.agentUid) === link && link.canWrite;
      if (canWrite) link.write(frame.frame);
      (canWrite ? written : unwritten).push(sent);
    }
    publish(written);
    occupy(link, settle('unwritten', link, unwritten), confirmation(link, written));
  }

  function occupy(link: CommandLink, ...work: Promise<void>[]): void {
    const { agentUid } = link;
    busy.set(agentUid, (busy.get(agentUid) ?? 0) + 1);
    track(
      Promise.all(work).then(() => {
        const others = (busy.get(agentUid) ?? 1) - 1;
        if (others > 0) busy.set(agentUid, others);
        else busy.delete(agentUid);
        wake([agentUid]);
      }),
    );
  }

  async function confirmation(link: CommandLink, messages: readonly Message[]): Promise<void> {
    if (messages.length === 0) return;
    let isRead = false;
    try {
      isRead = await link.barrier();
    } catch (error) {
      deps.logError(error, 'an agent could not be asked whether it has read its messages');
    }
    await settle(isRead ? 'read' : 'unread', link, messages);
  }

  async function settle(outcome: Outcome, link: CommandLink, messages: readonly Message[]): Promise<void> {
    if (messages.length === 0) return;
    const retryDelayMs = outcome === 'unread' ? backoffMs(Math.max(...messages.map(({ attempts }) => attempts))) : 0;
    await outcomes.settle(
      outcome,
      messages.map(({ id }) => ({ id, epoch: link.epoch, retryDelayMs })),
    );
  }

  /** Jitter over an exponential: half of it at least, so that a retry is never at once. */
  function backoffMs(attempts: number): number {
    const ceiling = Math.min(maxRetryDelayMs, firstRetryDelayMs * 2 ** Math.min(attempts, 10));
    return Math.round(ceiling * (0.5 + deps.random() / 2));
  }

  function publish(messages: readonly Message[]): void {
    if (messages.length > 0) deps.announce(messages);
  }

  /** What a lost hint or a failing database left behind, and what is due for another attempt. */
  async function lookAround(): Promise<void> {
    await outcomes.retry();
    wake(fresh.keys());
    if (links.size > 0) wake(await transitions.awaited([...links.keys()]));
  }

  return {
    attach(link) {
      links.set(link.agentUid, link);
      fresh.set(link.agentUid, link);
      wake([link.agentUid]);
    },
    detach(link) {
      if (links.get(link.agentUid) !== link) return;
      links.delete(link.agentUid);
      fresh.delete(link.agentUid);
    },
    start() {
      releases.push(
        bus.subscribe('queued', ({ agentUids }) => wake(agentUids)),
        repeat(clock, pollIntervalMs, lookAround, (error) =>
          deps.logError(error, 'waiting messages could not be looked for'),
        ),
        repeat(
          clock,
          expiryIntervalMs,
          async () => publish(await transitions.expire(maxExpiredAtOnce)),
          (error) => deps.logError(error, 'messages could not be expired'),
        ),
      );
    },
    async stop() {
      for (const release of releases.splice(0)) release();
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
