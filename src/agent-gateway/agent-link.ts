import type { Duplex } from 'node:stream';
import type { WebSocket } from 'ws';
import { describeError, type ErrorCode } from '../errors.ts';
import type { NewEvent } from '../events/event.ts';
import type { IngestOutcome } from '../events/ingest.ts';
import type { Admission, AuthenticatedAgent, LinkStanding } from '../fleet/admission.ts';
import type { AgentProtocol } from '../fleet/agent.ts';
import type { CommandLink } from '../messages/command-link.ts';
import type { GatewayContext } from './context.ts';
import { reportFrameFaults } from './frame-faults.ts';
import type { FrameQueue } from './frame-queue.ts';
import type { Link, Links } from './links.ts';
import { createThrottle, type Throttle } from './throttle.ts';

/** What a link is given of its connection. */
export interface LinkConnection<Frame> {
  readonly socket: WebSocket;
  /** What the socket reads from. */
  readonly connection: Duplex;
  readonly queue: FrameQueue<Frame>;
}

/** How long a link may be silent, in milliseconds. */
export interface LinkPatience {
  readonly pingAfterMs: number;
  readonly deadAfterMs: number;
}

/**
 * closing: the close frame is out, and what the agent sent before it read that is still taken. closed: nothing is.
 */
type LinkState = 'open' | 'closing' | 'closed';

/** For what is still on its way over a link that a newer one replaces. */
const lastWordsMs = 1_000;
/** Commands wait while more than this is on its way to the agent. */
const maxBufferedBytes = 1024 * 1024;
const maxUnreadBytes = 4 * maxBufferedBytes;
/** A frame that is refused costs an agent as many as this: most have cost the gateway a signature or two. */
const refusedFrameCost = 10;
/** Frames that no sound agent sends, unless it flaps and sends one twice. */
const attacks: ReadonlySet<ErrorCode> = new Set([
  'FRAME_CHANNEL_FOREIGN',
  'FRAME_CLOCK_SKEW',
  'FRAME_SIGNATURE_INVALID',
  'FRAME_REPLAYED',
  'FRAME_ID_REUSED',
]);
/** Ends after which what the agent sent before it heard of them is still taken. */
const gentleEnds: ReadonlySet<ErrorCode> = new Set(['LINK_SUPERSEDED', 'LINK_DISCONNECTED', 'SESSION_ENDED']);

/**
 * One agent's connection, from its authentication to its end: how it stands, whether it owns its agent, what it stores, and
 * how it ends. What is said over it is for the protocol's own class.
 */
export abstract class AgentLink<Frame> implements Link {
  abstract readonly protocol: AgentProtocol;
  readonly publicKey: string;
  protected readonly socket: WebSocket;
  protected readonly queue: FrameQueue<Frame>;
  protected readonly context: GatewayContext;
  protected readonly links: Links;
  protected abstract readonly patience: LinkPatience;
  /** So many of its events may wait for the database before the agent itself must wait. */
  protected abstract readonly maxWaitingEvents: number;
  readonly #throttle: Throttle;
  readonly #agent: AuthenticatedAgent;
  #state: LinkState = 'open';
  #standing: LinkStanding;
  /** Null unless the link owns its agent, or did. */
  #epoch: number | null;
  #promotion: Promise<void> | null = null;
  #isSuperseded = false;
  /** The database is behind, and reading waits for it. */
  #awaitsStore = false;
  #unreadSinceMs: number | null = null;
  #waitingEvents = 0;
  #resumeEvents: (() => void) | null = null;
  #commandLink: CommandLink | null = null;
  #lastHeardMs: number;
  #lastPingMs = 0;
  #closeReason = 'the agent went away';

  constructor(
    { socket, connection, queue }: LinkConnection<Frame>,
    agent: AuthenticatedAgent,
    admission: Admission,
    context: GatewayContext,
    links: Links,
  ) {
    this.socket = socket;
    this.queue = queue;
    this.context = context;
    this.links = links;
    this.publicKey = agent.publicKey;
    // Whoever shows another key under the agent's name has an allowance of its own.
    const allowance = context.allowances.of(`${admission.standing.agentUid} ${agent.publicKey}`);
    this.#throttle = createThrottle(
      { socket, connection, queue, onPause: () => this.waits() },
      allowance,
      context.clock,
    );
    this.#agent = agent;
    this.#standing = admission.standing;
    this.#epoch = admission.epoch;
    this.#lastHeardMs = context.clock.now();
  }

  /** Handles one frame; a promise where the next one must wait for it. */
  protected abstract take(frame: Frame): Promise<void> | null;
  /** Whether the agent can be sent commands by now, as far as the protocol goes. */
  protected abstract readonly takesCommands: boolean;
  /** How commands are written; `canWrite` is to be asked right before each write. */
  protected abstract commandWriter(canWrite: () => boolean): Pick<CommandLink, 'maxBatch' | 'write'>;
  /** The last words of a link that a newer one replaces have been said: what it still waits for does not come. */
  protected abstract hush(): void;
  /** The socket is gone. */
  protected abstract release(): void;

  /** Why a link that stands like this must end, if it must. */
  protected endOf(standing: LinkStanding): ErrorCode | null {
    return standing.enrollment === 'revoked' ? 'AGENT_REVOKED' : null;
  }

  get agentUid(): string {
    return this.#standing.agentUid;
  }

  get remoteAddress(): string | null {
    return this.#agent.remoteAddress;
  }

  get name(): string {
    return this.#standing.name;
  }

  get standing(): LinkStanding {
    return this.#standing;
  }

  get ownsAgent(): boolean {
    return this.#epoch !== null && !this.#isSuperseded;
  }

  get epoch(): number | null {
    return this.#epoch;
  }

  get isOpen(): boolean {
    return this.#state === 'open';
  }

  get isPaused(): boolean {
    return this.#throttle.isPaused;
  }

  /** Begins to work: all that the socket brings goes to this link from now on. */
  start(): void {
    this.queue.handTo((frame) => this.take(frame));
    reportFrameFaults(this.socket, this.context.report, this.name);
    this.socket.on('ping', () => this.heard());
    this.socket.on('pong', () => this.heard());
    this.socket.once('close', () => this.#ended());
    this.attachIfReady();
  }

  async update(standing: LinkStanding): Promise<void> {
    const end = this.endOf(standing);
    this.#standing = standing;
    if (end) return this.close(end);
    // Where another key is on record now, the link stays the owner, without trust, until one with that key takes over.
    if (!standing.trusted) this.detach();
    if (standing.holdsKey && this.#epoch === null && !this.#isSuperseded) await this.#promote();
    this.attachIfReady();
  }

  supersede(): void {
    if (this.#isSuperseded) return;
    this.#isSuperseded = true;
    this.detach();
    this.context.clock.after(lastWordsMs, () => {
      this.close('LINK_SUPERSEDED');
      this.hush();
    });
  }

  checkHealth(nowMs: number): void {
    if (!this.isOpen) return;
    const silentMs = nowMs - this.#lastHeardMs;
    if (silentMs > this.patience.deadAfterMs && !this.queue.isHeld) {
      this.giveUp();
    } else if (Math.min(silentMs, nowMs - this.#lastPingMs) >= this.patience.pingAfterMs) {
      this.#lastPingMs = nowMs;
      this.socket.ping();
    }
  }

  close(code: ErrorCode): void {
    const { closeCode, text } = describeError(code);
    this.#end(closeCode ?? 1011, text, gentleEnds.has(code) ? 'closing' : 'closed');
  }

  end(closeCode: number, reason: string): void {
    this.#end(closeCode, reason, 'closing');
  }

  /** Nothing was heard for too long. */
  protected giveUp(): void {
    this.#closeReason = describeError('LINK_DEAD').text;
    this.socket.terminate();
  }

  /** Whether what comes is still taken. */
  protected get isReading(): boolean {
    return this.#state !== 'closed';
  }

  /** A frame has come, whatever it is. */
  protected tookFrame(): void {
    this.heard();
    this.#throttle.tookFrames(1);
  }

  protected heard(): void {
    this.#lastHeardMs = this.context.clock.now();
    if (this.#epoch !== null && this.ownsAgent) this.context.admissions.seen(this.agentUid, this.#epoch);
  }

  protected send(frame: string | Uint8Array): void {
    if (this.socket.readyState !== this.socket.OPEN) return;
    this.socket.send(frame);
    // Commands are written only while there is room; whoever fills it asks without reading the answers.
    if (this.socket.bufferedAmount > maxUnreadBytes) this.close('LINK_FLOODED');
  }

  /** Stores an event, and stops reading while too many of the agent's own wait, or the database is behind. */
  protected store(event: NewEvent, settled: (outcome: IngestOutcome) => void): void {
    const { ingest } = this.context;
    this.#waitingEvents++;
    ingest.push(event, (outcome) => {
      if (--this.#waitingEvents <= this.maxWaitingEvents) {
        this.#resumeEvents?.();
        this.#resumeEvents = null;
      }
      settled(outcome);
    });
    if (this.#waitingEvents > this.maxWaitingEvents) this.#resumeEvents ??= this.#holdForStore();
    if (!ingest.isSaturated || this.#awaitsStore) return;
    this.#awaitsStore = true;
    const resume = this.#holdForStore();
    ingest.whenDrained(() => {
      this.#awaitsStore = false;
      resume();
    });
  }

  #holdForStore(): () => void {
    this.waits();
    const release = this.queue.hold();
    return () => {
      this.#lastHeardMs = this.context.clock.now();
      release();
    };
  }

  /** Since when, by the wall clock, frames may have waited to be read; null where they have not. */
  protected get unreadSinceMs(): number | null {
    return this.#unreadSinceMs;
  }

  /** Reading stops for a while: what is read afterwards may have been sent long before. */
  protected waits(): void {
    this.#unreadSinceMs ??= this.context.wall.now();
  }

  /** What is read now was sent just now. */
  protected caughtUp(): void {
    this.#unreadSinceMs = null;
  }

  protected refuse(code: ErrorCode): null {
    this.#throttle.tookFrames(refusedFrameCost - 1);
    this.context.report.refusedFrame(this.name, code);
    if (attacks.has(code)) this.noteAttack(code);
    return null;
  }

  /** Puts on record, summed up, that something came which only a fault or somebody else could have sent. */
  protected noteAttack(code: ErrorCode): void {
    const { orgId, agentUid: uid, name } = this.#standing;
    const { protocol, remoteAddress: clientAddress } = this.#agent;
    this.context.noteRefusal({
      ...{ action: 'agent.frame-refused', agent: { orgId, uid, name }, protocol, code, clientAddress },
    });
  }

  /** Becomes the link of this agent, which may be another one than before. */
  protected async adopt(agentUid: string): Promise<void> {
    await this.#promotion;
    const [standing] = await this.context.admissions.standings([{ agentUid, publicKey: this.publicKey }]);
    if (!standing || !this.isOpen) return;
    if (agentUid !== this.agentUid) {
      await this.#giveUpAgent();
      if (!this.isOpen) return;
      this.links.remove(this);
      this.#standing = standing;
      this.links.add(this);
    }
    await this.update(standing);
  }

  protected attachIfReady(): void {
    const epoch = this.#epoch;
    const isFit = this.isOpen && this.takesCommands && this.#standing.trusted;
    if (!isFit || epoch === null || !this.ownsAgent || this.#commandLink) return;
    this.#commandLink = this.#createCommandLink(epoch);
    this.context.dispatch.attach(this.#commandLink);
  }

  protected detach(): void {
    if (this.#commandLink) this.context.dispatch.detach(this.#commandLink);
    this.#commandLink = null;
  }

  #createCommandLink(epoch: number): CommandLink {
    const canWrite = () =>
      this.#commandLink === commandLink &&
      this.socket.readyState === this.socket.OPEN &&
      this.socket.bufferedAmount < maxBufferedBytes &&
      this.context.admissions.holdsLease;
    const commandLink: CommandLink = {
      ...this.commandWriter(canWrite),
      agentUid: this.agentUid,
      epoch,
      get canWrite() {
        return canWrite();
      },
    };
    return commandLink;
  }

  #promote(): Promise<void> {
    this.#promotion ??= this.#takeOwnership().finally(() => {
      this.#promotion = null;
    });
    return this.#promotion;
  }

  async #takeOwnership(): Promise<void> {
    const epoch = await this.context.admissions.promote(this.agentUid, this.#agent);
    if (epoch === null) return;
    this.#epoch = epoch;
    if (this.socket.readyState === this.socket.CLOSED) await this.#giveUpAgent();
    else this.links.own(this);
  }

  async #giveUpAgent(): Promise<void> {
    const epoch = this.#epoch;
    this.detach();
    this.#epoch = null;
    if (epoch !== null) await this.context.admissions.left(this.agentUid, epoch, this.#closeReason);
  }

  #end(closeCode: number, reason: string, state: 'closing' | 'closed'): void {
    if (this.#state === 'closed') return;
    const wasOpen = this.isOpen;
    this.#state = state;
    if (!wasOpen) return;
    this.#closeReason = reason;
    this.detach();
    this.queue.letGo();
    this.socket.close(closeCode, reason);
  }

  #ended(): void {
    this.queue.end();
    this.#state = 'closed';
    this.#throttle.end();
    this.release();
    this.links.remove(this);
    this.context.report.closed(this.name, this.#closeReason);
    this.#giveUpAgent().catch((error) => this.context.report.error(error, 'a departure could not be written'));
  }
}
