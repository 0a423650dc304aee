import type { Bus } from '../bus/bus.ts';
import { type Clock, repeat } from '../clock.ts';
import { groupBy } from '../group-by.ts';
import type { CommandKind, Message, MessageType } from './message.ts';
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
  stop(): void;
}

const maxAgentsAtOnce = 200;
const maxMessagesPerAgent = 10;
const pollIntervalMs = 3_000;
const expiryIntervalMs = 1_000;
const maxExpiredAtOnce = 1_000;
const maxConfirmedAtOnce = 1_000;
const firstRetryDelayMs = 1_000;
const maxRetryDelayMs = 30_000;

export function createDispatch(deps: {
  readonly transitions: Transitions;
  readonly bus: Bus;
  readonly clock: Clock;
  /** From 0 to 1. */
  readonly random: () => number;
  readonly logError: (error: unknown, context: string) => void;
}): Dispatch {
  const { transitions, bus, clock } = deps;
  const links = new Map<string, CommandLink>();
  /** Agents that messages may wait for. */
  const due = new Set<string>();
  /** Links with frames that are not confirmed yet: the next ones wait, so that order holds. */
  const busy = new Set<CommandLink>();
  /** Links whose agents may have unconfirmed messages of an earlier link. */
  const fresh = new Map<string, CommandLink>();
  const releases: (() => void)[] = [];
  /** Read by their agents, and not written down yet; kept until they are. */
  let confirmed: { id: string; epoch: number }[] = [];
  let confirming = false;
  let pumping = false;

  function wake(agentUids: Iterable<string>): void {
    for (const uid of agentUids) if (links.has(uid)) due.add(uid);
    if (due.size === 0 || pumping) return;
    pumping = true;
    pump()
      .catch((error) => deps.logError(error, 'messages could not be dispatched'))
      .finally(() => {
        pumping = false;
      });
  }

  async function pump(): Promise<void> {
    for (;;) {
      const batch: string[] = [];
      for (const uid of due) {
        if (batch.length === maxAgentsAtOnce) break;
        due.delete(uid);
        const link = links.get(uid);
        // A busy link wakes its agent again when it is done.
        if (link && !busy.has(link)) batch.push(uid);
      }
      if (batch.length === 0) return;
      await recoverFresh(batch);
      await sendWaiting(batch);
    }
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
    const claimed = new Map((await transitions.claim(claims)).map((message) => [message.id, message]));

    // In the order in which they wait, not in the order in which the database answers.
    const written: { link: CommandLink; message: Message }[] = [];
    const unwritten: { link: CommandLink; message: Message }[] = [];
    for (const { link, message, frame } of outgoing) {
      const sent = claimed.get(message.id);
      if (!sent) continue;
      const canWrite = links.get(link.agentUid) === link && link.canWrite;
      if (canWrite) link.write(frame.frame);
      (canWrite ? written : unwritten).push({ link, message: sent });
    }
    publish(written.map(({ message }) => message));
    for (const [link, entries] of groupBy(written, (entry) => entry.link))
      awaitConfirmation(
        link,
        entries.map(({ message }) => message),
      );
    for (const [link, entries] of groupBy(unwritten, (entry) => entry.link)) {
      const ids = entries.map(({ message }) => message.id);
      publish(await transitions.release(ids, link.epoch));
    }
  }

  function sealed(waiting: readonly Message[]): { link: CommandLink; message: Message; frame: SealedFrame }[] {
    return waiting.flatMap((message) => {
      const link = links.get(message.agentUid);
      return link?.canWrite ? { link, message, frame: link.seal(message) } : [];
    });
  }

  function awaitConfirmation(link: CommandLink, messages: readonly Message[]): void {
    busy.add(link);
    const ids = messages.map((message) => message.id);
    link
      .barrier()
      .then(async (isRead) => {
        if (isRead) {
          confirmed.push(...ids.map((id) => ({ id, epoch: link.epoch })));
          await confirmAll();
        } else {
          const attempts = Math.max(...messages.map((message) => message.attempts));
          publish(await transitions.giveUp({ ids, epoch: link.epoch }, retryDelayMs(attempts)));
        }
      })
      .catch((error) => deps.logError(error, 'the outcome of messages could not be written'))
      .finally(() => {
        busy.delete(link);
        wake([link.agentUid]);
      });
  }

  /** Confirmations of many links in one statement, while the one before is under way. */
  async function confirmAll(): Promise<void> {
    if (confirming) return;
    confirming = true;
    try {
      while (confirmed.length > 0) {
        const batch = confirmed.slice(0, maxConfirmedAtOnce);
        publish(await transitions.confirm(batch));
        confirmed = confirmed.slice(batch.length);
      }
    } finally {
      confirming = false;
    }
  }

  /** Full jitter over an exponential: half of it at least, so that a retry is never at once. */
  function retryDelayMs(attempts: number): number {
    const ceiling = Math.min(maxRetryDelayMs, firstRetryDelayMs * 2 ** Math.min(attempts, 10));
    return Math.round(ceiling * (0.5 + deps.random() / 2));
  }

  function publish(messages: readonly Message[]): void {
    if (messages.length > 0) bus.publish('messages', messages);
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
        // What a lost hint left behind, and what is due for another attempt.
        repeat(
          clock,
          pollIntervalMs,
          async () => {
            await confirmAll();
            if (links.size > 0) wake(await transitions.awaited([...links.keys()]));
          },
          (error) => deps.logError(error, 'waiting messages could not be looked for'),
        ),
        repeat(
          clock,
          expiryIntervalMs,
          async () => publish(await transitions.expire(maxExpiredAtOnce)),
          (error) => deps.logError(error, 'messages could not be expired'),
        ),
      );
    },
    stop() {
      for (const release of releases.splice(0)) release();
    },
  };
}
