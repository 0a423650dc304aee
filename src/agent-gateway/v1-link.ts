import type { WebSocket } from 'ws';
import { describeError, type ErrorCode } from '../errors.ts';
import type { NewEvent } from '../events/event.ts';
import type { Admission, LinkStanding } from '../fleet/admission.ts';
import type { CommandLink } from '../messages/command-link.ts';
import type { GatewayContext } from './context.ts';
import type { SigningKey } from './crypto/suite.ts';
import type { FrameQueue, InboundFrame } from './frame-queue.ts';
import type { Link, Links } from './links.ts';
import { patiently } from './patience.ts';
import { createPingBarriers, type PingBarriers } from './ping-barriers.ts';
import type { V1Claim } from './v1-authentication.ts';
import { createV1CommandSealer } from './v1-commands.ts';
import { createV1FrameReader, type V1FrameReader } from './v1-inbound.ts';
import { answerRegistration, isRegistrationFrame } from './v1-registration.ts';
import { decodeFrame, type V1Frame } from './wire/v1.ts';

/**
 * settling: authenticated, and it is not known yet whether a registration follows. registering: from its first frame to its
 * end. In both the agent takes whatever arrives as the answer that it waits for, so nothing else is sent. closing: the
 * close frame is out, and what the agent sent before it read that is still taken. closed: nothing is.
 */
type Phase = 'settling' | 'registering' | 'ready' | 'closing' | 'closed';

/** A registration follows the authentication at once; one that has not come within this time does not come. */
const settleMs = 2_000;
/** Each wait of a registering agent times out after 10 s. */
const registrationTimeoutMs = 12_000;
/** Agents ping every 20 s. */
const silenceMs = 65_000;
const pingAfterSilenceMs = 20_000;
/** An agent drops a link on which it has read nothing for 60 s; only data and our pongs to its pings count. */
const keepAliveAfterMs = 40_000;
/** For what is still on its way over a link that a newer one replaces. */
const lastWordsMs = 1_000;
/** Commands wait while more than this is on its way to the agent. */
const maxBufferedBytes = 1024 * 1024;
const maxUnreadBytes = 4 * maxBufferedBytes;
/** So many commands may be on their way to the agent at once. */
const maxUnreadCommands = 10;
const maxAliases = 16;

/** One v1 agent's connection, from its authentication to its end. */
export class V1Link implements Link {
  readonly protocol = 'v1';
  readonly publicKey: string;
  readonly #socket: WebSocket;
  readonly #queue: FrameQueue;
  /** The gateway's key as the agent was told it. */
  readonly #gatewayKey: SigningKey;
  readonly #context: GatewayContext;
  readonly #links: Links;
  readonly #claim: V1Claim;
  readonly #reader: V1FrameReader;
  readonly #barriers: PingBarriers;
  #standing: LinkStanding;
  /** Null unless the link owns its agent, or did. */
  #epoch: number | null;
  #promotion: Promise<void> | null = null;
  #phase: Phase;
  #isSuperseded = false;
  /** The database is behind, and reading waits for it. */
  #awaitsStore = false;
  #commandLink: CommandLink | null = null;
  #cancelPhaseTimer: () => void = () => {};
  #lastHeardMs: number;
  #lastSpokeMs: number;
  #closeReason = 'the agent went away';
  /** Names by which a handoff agent calls itself although they are not its own. */
  #aliases: string[] = [];

  constructor(
    connection: { readonly socket: WebSocket; readonly queue: FrameQueue; readonly gatewayKey: SigningKey },
    claim: V1Claim,
    admission: Admission,
    context: GatewayContext,
    links: Links,
  ) {
    this.#socket = connection.socket;
    this.#gatewayKey = connection.gatewayKey;
    this.#queue = connection.queue;
    this.#claim = claim;
    this.#context = context;
    this.#links = links;
    this.#standing = admission.standing;
    this.#epoch = admission.epoch;
    this.publicKey = claim.agent.publicKey;
    this.#lastHeardMs = this.#lastSpokeMs = context.clock.now();
    this.#barriers = createPingBarriers(this.#socket, context.clock);
    this.#reader = createV1FrameReader({
      dialect: claim.dialect,
      publicKey: claim.agent.publicKey,
      verify: claim.verify,
      clockSkewMs: context.clockSkewMs,
    });
    // An agent that shows a uid has registered before and skips it.
    const isRegistered = claim.agent.uid !== null && claim.agent.uid !== claim.agent.name;
    this.#phase = isRegistered || claim.dialect === 'handoff' ? 'ready' : 'settling';
  }

  get agentUid(): string {
    return this.#standing.agentUid;
  }

  get name(): string {
    return this.#standing.name;
  }

  get ownsAgent(): boolean {
    return this.#epoch !== null && !this.#isSuperseded;
  }

  get epoch(): number | null {
    return this.#epoch;
  }

  get isOpen(): boolean {
    return this.#phase !== 'closing' && this.#phase !== 'closed';
  }

  /** Begins to work: the socket's control frames and its end go to this link from now on. */
  start(): void {
    const socket = this.#socket;
    socket.on('ping', () => {
      this.#heard();
      // ws answers it, and that extends the agent's read deadline.
      this.#lastSpokeMs = this.#context.clock.now();
    });
    socket.on('pong', (body) => {
      this.#heard();
      this.#barriers.ponged(body.toString());
    });
    socket.once('close', () => this.#ended());
    if (this.#phase === 'settling') this.#enter('settling', settleMs);
    this.#attachIfReady();
  }

  /** Handles one frame; a promise where the next one must wait for it. */
  take(inbound: InboundFrame): Promise<void> | null {
    if (this.#phase === 'closed') return null;
    this.#heard();
    if (inbound === null) return this.#refuse('FRAME_NOT_TEXT');
    const decoded = decodeFrame(inbound);
    if (!decoded.ok) return this.#refuse(decoded.code);
    const frame = decoded.value;
    if (isRegistrationFrame(frame)) return this.isOpen ? this.#register(frame) : null;
    const read = this.#reader.read(frame, this.#standing, this.#context.clock.now());
    if ('refused' in read) return this.#refuse(read.refused);
    if ('foreignRef' in read && !this.#aliases.includes(read.foreignRef))
      return this.#storeUnlessForeign(read.event, read.foreignRef);
    this.#store(read.event);
    return null;
  }

  /** Takes over what has changed about the agent: approval, keys, channels. */
  async update(standing: LinkStanding): Promise<void> {
    this.#standing = standing;
    if (standing.enrollment === 'revoked') return this.close('AGENT_REVOKED');
    // The owner stays until the v2 link takes over, so that the agent is not gone in between.
    if (standing.refusesV1 && !this.ownsAgent) return this.close('AGENT_V1_REFUSED');
    // Where another key is on record now, the link stays the owner, without trust, until one with that key takes over.
    if (!standing.trusted) this.#detach();
    if (standing.holdsKey && this.#epoch === null && !this.#isSuperseded) await this.#promote();
    this.#attachIfReady();
  }

  /** A newer link owns the agent: frames under way are still read, then this one closes. */
  supersede(): void {
    if (this.#isSuperseded) return;
    this.#isSuperseded = true;
    this.#detach();
    this.#context.clock.after(lastWordsMs, () => {
      this.close('LINK_SUPERSEDED');
      // An agent that reads an abandoned socket has answered by now; one that does not gets its commands over the newer link.
      this.#barriers.end();
    });
  }

  /** Keeps both sides sure of each other; called every few seconds. */
  checkHealth(nowMs: number): void {
    if (!this.isOpen) return;
    const silentMs = nowMs - this.#lastHeardMs;
    if (silentMs > silenceMs && !this.#queue.isHeld) {
      this.#closeReason = describeError('LINK_DEAD').text;
      this.#socket.terminate();
      return;
    }
    if (this.#phase !== 'ready') return;
    if (silentMs >= pingAfterSilenceMs) this.#socket.ping();
    if (this.#claim.dialect === 'enveloped' && nowMs - this.#lastSpokeMs >= keepAliveAfterMs)
      this.#send(this.#sealer().keepAlive(`keep-alive-${nowMs}`, nowMs));
  }

  /** Ends the link with the code's close code. */
  close(code: ErrorCode): void {
    const { closeCode, text } = describeError(code);
    this.#end(
      closeCode ?? 1011,
      text,
      code === 'LINK_SUPERSEDED' || code === 'LINK_DISCONNECTED' ? 'closing' : 'closed',
    );
  }

  end(closeCode: number, reason: string): void {
    this.#end(closeCode, reason, 'closing');
  }

  #end(closeCode: number, reason: string, phase: 'closing' | 'closed'): void {
    if (this.#phase === 'closed') return;
    const wasOpen = this.isOpen;
    this.#enter(phase);
    if (!wasOpen) return;
    this.#closeReason = reason;
    this.#detach();
    this.#queue.letGo();
    this.#socket.close(closeCode, reason);
  }

  async #storeUnlessForeign(event: NewEvent, ref: string): Promise<void> {
    const { orgId } = this.#standing;
    const isForeign = await patiently(this.#context, 'a look at the fleet', () =>
      this.#context.agentExists(orgId, ref),
    );
    if (isForeign) return void this.#refuse('FRAME_CHANNEL_FOREIGN');
    if (this.#aliases.push(ref) > maxAliases) this.#aliases.shift();
    this.#store(event);
  }

  #store(event: NewEvent): void {
    const { ingest } = this.#context;
    ingest.push(event, (outcome) => {
      if (outcome === 'duplicate') this.#refuse('FRAME_REPLAYED');
      else if (outcome === 'conflict') this.#refuse('FRAME_ID_REUSED');
      else if (outcome === 'refused') this.#refuse('FRAME_PAYLOAD_INVALID');
    });
    if (!ingest.isSaturated || this.#awaitsStore) return;
    this.#awaitsStore = true;
    const release = this.#queue.hold();
    ingest.whenDrained(() => {
      this.#awaitsStore = false;
      this.#lastHeardMs = this.#context.clock.now();
      release();
    });
  }

  async #register(frame: V1Frame): Promise<void> {
    this.#detach();
    this.#enter('registering', registrationTimeoutMs);
    const { text, agentUid } = await answerRegistration(frame, this, this.#context);
    if (agentUid !== null) await this.#adopt(agentUid);
    this.#send(text);
    if (agentUid !== null) this.#becomeReady('registering');
  }

  /** The registration may have put the agent into another organisation, and so made it another agent. */
  async #adopt(agentUid: string): Promise<void> {
    try {
      await this.#promotion;
      const { admissions } = this.#context;
      const [standing] = await admissions.standings([{ agentUid, publicKey: this.publicKey }]);
      if (!standing || !this.isOpen) return;
      if (agentUid !== this.agentUid) {
        await this.#giveUpAgent();
        if (!this.isOpen) return;
        this.#links.remove(this);
        this.#standing = standing;
        this.#links.add(this);
      }
      await this.update(standing);
    } catch (error) {
      // The agent waits for its answer; how the link stands is looked up again and again.
      this.#context.report.error(error, 'a registered agent could not be looked up');
    }
  }

  #becomeReady(from: Phase): void {
    if (this.#phase !== from) return;
    this.#enter('ready');
    this.#attachIfReady();
  }

  /** Enters a phase, which gives way to `ready` after `readyAfterMs` where that is given. */
  #enter(phase: Phase, readyAfterMs?: number): void {
    this.#cancelPhaseTimer();
    this.#phase = phase;
    this.#cancelPhaseTimer =
      readyAfterMs === undefined
        ? () => {}
        : // A busy loop runs its timers first: what has arrived by now is read before the time is up.
          this.#context.clock.after(readyAfterMs, () => setImmediate(() => this.#becomeReady(phase)));
  }

  #promote(): Promise<void> {
    this.#promotion ??= this.#takeOwnership().finally(() => {
      this.#promotion = null;
    });
    return this.#promotion;
  }

  async #takeOwnership(): Promise<void> {
    const epoch = await this.#context.admissions.promote(this.agentUid, this.#claim.agent);
    if (epoch === null) return;
    this.#epoch = epoch;
    if (this.#socket.readyState === this.#socket.CLOSED) await this.#giveUpAgent();
    else this.#links.own(this);
  }

  async #giveUpAgent(): Promise<void> {
    const epoch = this.#epoch;
    this.#detach();
    this.#epoch = null;
    if (epoch !== null) await this.#context.admissions.left(this.agentUid, epoch, this.#closeReason);
  }

  #attachIfReady(): void {
    const epoch = this.#epoch;
    const isFit = this.#phase === 'ready' && this.#claim.dialect === 'enveloped' && this.#standing.trusted;
    if (!isFit || epoch === null || !this.ownsAgent || this.#commandLink) return;
    this.#commandLink = this.#createCommandLink(epoch);
    this.#context.dispatch.attach(this.#commandLink);
  }

  #detach(): void {
    if (this.#commandLink) this.#context.dispatch.detach(this.#commandLink);
    this.#commandLink = null;
  }

  #createCommandLink(epoch: number): CommandLink {
    const { admissions, clock } = this.#context;
    const sealer = this.#sealer();
    const canWrite = () =>
      this.#commandLink === commandLink &&
      this.#socket.readyState === this.#socket.OPEN &&
      this.#socket.bufferedAmount < maxBufferedBytes &&
      admissions.holdsLease;
    const commandLink: CommandLink = {
      agentUid: this.agentUid,
      epoch,
      get canWrite() {
        return canWrite();
      },
      maxBatch: maxUnreadCommands,
      write: (commands) => {
        const frames = commands.map((command) => {
          const frame = sealer.seal(command, clock.now());
          if (!canWrite() || command.expiresInMs <= 0) return null;
          this.#send(frame.text);
          return frame;
        });
        // One pong confirms every frame before it.
        const isRead = frames.some((frame) => frame !== null) ? this.#barriers.raise() : Promise.resolve(false);
        const confirmation = isRead.then((read) => (read ? 'read' : 'unread'));
        return frames.map((frame) => frame && { frame, confirmation });
      },
    };
    return commandLink;
  }

  #sealer() {
    return createV1CommandSealer(this.#context.suite, this.#gatewayKey, this.#claim.publicKeyBytes);
  }

  #heard(): void {
    this.#lastHeardMs = this.#context.clock.now();
    if (this.#epoch !== null && this.ownsAgent) this.#context.admissions.seen(this.agentUid, this.#epoch);
  }

  #send(frame: string): void {
    if (this.#socket.readyState !== this.#socket.OPEN) return;
    this.#lastSpokeMs = this.#context.clock.now();
    this.#socket.send(frame);
    // Commands are written only while there is room; whoever fills it asks without reading the answers.
    if (this.#socket.bufferedAmount > maxUnreadBytes) this.close('LINK_FLOODED');
  }

  #refuse(code: ErrorCode): null {
    this.#context.report.refusedFrame(this.name, code);
    return null;
  }

  #ended(): void {
    this.#enter('closed');
    this.#barriers.end();
    this.#links.remove(this);
    this.#context.report.closed(this.name, this.#closeReason);
    this.#giveUpAgent().catch((error) => this.#context.report.error(error, 'a departure could not be written'));
  }
}
