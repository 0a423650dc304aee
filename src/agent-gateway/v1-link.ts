import type { RawData, WebSocket } from 'ws';
import { AegisError, describeError, type ErrorCode } from '../errors.ts';
import type { NewEvent } from '../events/ingest.ts';
import type { Admission, LinkStanding } from '../fleet/admission.ts';
import { parseRegistrationProof, parseRegistrationRequest } from '../fleet/registration-input.ts';
import type { CommandLink } from '../messages/dispatch.ts';
import type { GatewayContext } from './context.ts';
import type { Links } from './links.ts';
import type { V1Claim } from './v1-authentication.ts';
import { createV1CommandSealer } from './v1-commands.ts';
import { createV1FrameReader, type V1FrameReader } from './v1-inbound.ts';
import {
  decodeFrame,
  decodeObjectBody,
  encodeAnswer,
  registrationChannel,
  registrationCompleteChannel,
  type V1Frame,
} from './wire/v1.ts';

/**
 * settling: authenticated, and it is not known yet whether a registration follows. registering: between its first frame
 * and its end. In both the agent takes whatever arrives as the answer that it waits for, so nothing else is sent.
 */
type Phase = 'settling' | 'registering' | 'ready' | 'closed';

/** A registration follows the authentication at once; one that has not come within this time does not come. */
const settleMs = 2_000;
/** Each wait of a registering agent times out after 10 s. */
const registrationTimeoutMs = 12_000;
const barrierTimeoutMs = 10_000;
/** Agents ping every 20 s. */
const silenceMs = 65_000;
const pingAfterSilenceMs = 20_000;
/** An agent drops a link on which it has read nothing for 60 s; only data and our pongs to its pings count. */
const keepAliveAfterMs = 40_000;
const closeTimeoutMs = 1_000;
const maxBufferedBytes = 1024 * 1024;
const maxEarlyFrames = 1_000;
const maxAliases = 16;

/** One v1 agent's connection, from its authentication to its end. */
export class V1Link {
  readonly publicKey: string;
  readonly #socket: WebSocket;
  readonly #context: GatewayContext;
  readonly #links: Links;
  readonly #claim: V1Claim;
  readonly #reader: V1FrameReader;
  readonly #barriers = new Map<string, (isRead: boolean) => void>();
  #standing: LinkStanding;
  /** Null unless the link owns its agent. */
  #epoch: number | null;
  #phase: Phase;
  #isSuperseded = false;
  #isPaused = false;
  #commandLink: CommandLink | null = null;
  #cancelPhaseTimer: () => void = () => {};
  /** Frames that wait while an earlier one is being worked on. */
  #inbox: string[] = [];
  #isWorking = false;
  #lastHeardMs: number;
  #lastSpokeMs: number;
  #closeReason = 'the agent went away';
  #barrierCount = 0;
  /** Names by which a handoff agent calls itself although they are not its own. */
  #aliases: string[] = [];

  constructor(socket: WebSocket, claim: V1Claim, admission: Admission, context: GatewayContext, links: Links) {
    this.#socket = socket;
    this.#claim = claim;
    this.#context = context;
    this.#links = links;
    this.#standing = admission.standing;
    this.#epoch = admission.epoch;
    this.publicKey = claim.agent.publicKey;
    this.#lastHeardMs = this.#lastSpokeMs = context.clock.now();
    this.#reader = createV1FrameReader({
      suite: context.suite,
      dialect: claim.dialect,
      publicKey: claim.agent.publicKey,
      publicKeyBytes: claim.publicKeyBytes,
      clockSkewMs: context.clockSkewMs,
    });
    // An agent that shows a uid has registered before and skips it.
    const isRegistered = claim.agent.uid !== null && claim.agent.uid !== claim.agent.name;
    this.#phase = isRegistered || claim.dialect === 'handoff' ? 'ready' : 'settling';
    if (this.#phase === 'settling') this.#readyAfter(settleMs);
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
    return this.#phase !== 'closed';
  }

  /** Begins to work: everything that the socket brings goes to this link from now on. */
  start(): void {
    const socket = this.#socket;
    socket.on('ping', () => {
      this.#heard();
      // ws answers it, and that extends the agent's read deadline.
      this.#lastSpokeMs = this.#context.clock.now();
    });
    socket.on('pong', (body) => {
      this.#heard();
      this.#settleBarrier(body.toString(), true);
    });
    socket.on('close', () => this.#ended());
    this.#attachIfReady();
  }

  receive(data: RawData, isBinary: boolean): void {
    if (!this.isOpen) return;
    this.#heard();
    if (isBinary) {
      this.#refuse('FRAME_NOT_TEXT');
    } else if (this.#isWorking) {
      this.#inbox.push(data.toString());
      if (this.#inbox.length > maxEarlyFrames) this.close('LINK_FLOODED');
    } else {
      this.#work(data.toString());
    }
  }

  /** Takes over what has changed about the agent: approval, keys, channels. */
  async update(standing: LinkStanding): Promise<void> {
    const before = this.#standing;
    this.#standing = standing;
    if (standing.enrollment === 'revoked') return this.close('AGENT_REVOKED');
    if (before.holdsKey && !standing.holdsKey) await this.#giveUpAgent();
    if (!standing.trusted) this.#detach();
    if (standing.holdsKey && this.#epoch === null) await this.#promote();
    this.#attachIfReady();
  }

  /** A newer link owns the agent: frames under way are still read, then this one closes. */
  supersede(): void {
    if (this.#isSuperseded) return;
    this.#isSuperseded = true;
    this.#detach();
    this.#context.clock.after(closeTimeoutMs, () => this.close('LINK_SUPERSEDED'));
  }

  /** Keeps both sides sure of each other; called every few seconds. */
  checkHealth(nowMs: number): void {
    if (!this.isOpen) return;
    const silentMs = nowMs - this.#lastHeardMs;
    if (silentMs > silenceMs && !this.#isPaused) {
      this.#closeReason = describeError('LINK_DEAD').text;
      this.#socket.terminate();
      return;
    }
    if (this.#phase !== 'ready') return;
    if (silentMs >= pingAfterSilenceMs) this.#socket.ping();
    if (this.#claim.dialect === 'enveloped' && nowMs - this.#lastSpokeMs >= keepAliveAfterMs)
      this.#send(this.#sealer().keepAlive(`keep-alive-${nowMs}`, nowMs));
  }

  /** Ends the link with the code's close code. An agent that does not answer the close is cut off. */
  close(code: ErrorCode): void {
    const { closeCode, text } = describeError(code);
    this.end(closeCode ?? 1011, text);
  }

  end(closeCode: number, reason: string): void {
    if (!this.isOpen) return;
    this.#closeReason = reason;
    this.#leavePhase('closed');
    this.#detach();
    this.#socket.resume();
    this.#socket.close(closeCode, reason);
    const cancel = this.#context.clock.after(closeTimeoutMs, () => this.#socket.terminate());
    this.#socket.once('close', cancel);
  }

  #work(text: string): void {
    const pending = this.#process(text);
    if (!pending) return;
    this.#isWorking = true;
    pending
      .catch((error) => this.#context.report.error(error, 'a frame could not be processed'))
      .finally(() => {
        this.#isWorking = false;
        for (let next = this.#inbox.shift(); next !== undefined; next = this.#inbox.shift()) {
          this.#work(next);
          if (this.#isWorking) return;
        }
      });
  }

  /** Handles one frame; a promise where the next one must wait for it. */
  #process(text: string): Promise<void> | null {
    const decoded = decodeFrame(text);
    if (!decoded.ok) {
      this.#refuse(decoded.code);
      return null;
    }
    const frame = decoded.value;
    if (frame.channel === registrationChannel) return this.#beginRegistration(frame);
    if (frame.channel === registrationCompleteChannel) return this.#completeRegistration(frame);
    const inbound = this.#reader.read(frame, this.#standing, this.#context.clock.now());
    if ('refused' in inbound) this.#refuse(inbound.refused);
    else if ('foreignRef' in inbound && !this.#aliases.includes(inbound.foreignRef))
      return this.#takeUnlessForeign(inbound.event, inbound.foreignRef);
    else this.#take(inbound.event);
    return null;
  }

  async #takeUnlessForeign(event: NewEvent, ref: string): Promise<void> {
    if (await this.#context.agentExists(this.#standing.orgId, ref)) return this.#refuse('FRAME_CHANNEL_FOREIGN');
    if (this.#aliases.push(ref) > maxAliases) this.#aliases.shift();
    this.#take(event);
  }

  #take(event: NewEvent): void {
    const { ingest } = this.#context;
    ingest.push(event, (outcome) => {
      if (outcome === 'duplicate') this.#refuse('FRAME_REPLAYED');
      else if (outcome === 'conflict') this.#refuse('FRAME_ID_REUSED');
      else if (outcome === 'refused') this.#refuse('FRAME_PAYLOAD_INVALID');
    });
    if (!ingest.isSaturated || this.#isPaused) return;
    // The database is behind: TCP makes the agent wait.
    this.#isPaused = true;
    this.#socket.pause();
    ingest.whenDrained(() => {
      this.#isPaused = false;
      this.#lastHeardMs = this.#context.clock.now();
      if (this.#socket.readyState === this.#socket.OPEN) this.#socket.resume();
    });
  }

  async #beginRegistration(frame: V1Frame): Promise<void> {
    this.#detach();
    this.#leavePhase('registering');
    this.#readyAfter(registrationTimeoutMs);
    await this.#answer(frame, async (body) => {
      const challenge = await this.#context.registration.begin(parseRegistrationRequest(body), this);
      return {
        registration_id: challenge.registrationId,
        nonce: challenge.nonce,
        server_time: challenge.serverTime,
      };
    });
  }

  async #completeRegistration(frame: V1Frame): Promise<void> {
    const isRegistered = await this.#answer(frame, async (body) => {
      const registered = await this.#context.registration.complete(parseRegistrationProof(body), this);
      await this.#adopt(registered.agentUid);
      return { agent_uid: registered.agentUid, bootstrap_token: registered.bootstrapToken };
    });
    if (isRegistered) this.#becomeReady();
  }

  /** The registration may have put the agent into another organisation, and so made it another agent. */
  async #adopt(agentUid: string): Promise<void> {
    const { admissions } = this.#context;
    const [standing] = await admissions.standings([{ agentUid, publicKey: this.publicKey }]);
    if (!standing) throw new Error('the registered agent is not there');
    if (agentUid !== this.agentUid) {
      await this.#giveUpAgent();
      this.#links.remove(this);
      this.#standing = standing;
      this.#links.add(this);
    }
    await this.update(standing);
  }

  /** Answers a registration frame with plain JSON text, or with the error that stopped it. */
  async #answer(frame: V1Frame, work: (body: unknown) => Promise<object>): Promise<boolean> {
    let answer: object;
    let isDone = true;
    try {
      answer = await work(decodeObjectBody(frame.payload));
    } catch (error) {
      if (!(error instanceof AegisError)) this.#context.report.error(error, 'a registration failed');
      const known = error instanceof AegisError ? error : new AegisError('INTERNAL_SERVER_ERROR');
      answer = { error: known.message, code: known.code };
      isDone = false;
    }
    this.#send(encodeAnswer(`${frame.id}_response`, frame.channel, JSON.stringify(answer), this.#context.clock.now()));
    return isDone;
  }

  #readyAfter(delayMs: number): void {
    this.#cancelPhaseTimer = this.#context.clock.after(delayMs, () => this.#becomeReady());
  }

  #becomeReady(): void {
    if (!this.isOpen) return;
    this.#leavePhase('ready');
    this.#attachIfReady();
  }

  #leavePhase(next: Phase): void {
    this.#cancelPhaseTimer();
    this.#cancelPhaseTimer = () => {};
    this.#phase = next;
  }

  async #promote(): Promise<void> {
    const epoch = await this.#context.admissions.promote(this.agentUid, this.#claim.agent);
    if (epoch === null) return;
    this.#epoch = epoch;
    if (this.isOpen) this.#links.own(this);
    else await this.#giveUpAgent();
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
      seal: (message) => sealer.seal(message, clock.now()),
      write: (frame) => this.#send(frame),
      barrier: () => this.#barrier(),
    };
    return commandLink;
  }

  #sealer() {
    const { suite, gatewayKey } = this.#context;
    return createV1CommandSealer(suite, gatewayKey, this.#claim.publicKeyBytes);
  }

  /** The agent answers a ping in the loop that reads frames: its pong proves that it has read what was written before. */
  #barrier(): Promise<boolean> {
    if (this.#socket.readyState !== this.#socket.OPEN) return Promise.resolve(false);
    const id = `barrier-${++this.#barrierCount}`;
    return new Promise((resolve) => {
      const cancel = this.#context.clock.after(barrierTimeoutMs, () => this.#settleBarrier(id, false));
      this.#barriers.set(id, (isRead) => {
        cancel();
        resolve(isRead);
      });
      this.#socket.ping(id);
    });
  }

  #settleBarrier(id: string, isRead: boolean): void {
    this.#barriers.get(id)?.(isRead);
    this.#barriers.delete(id);
  }

  #heard(): void {
    this.#lastHeardMs = this.#context.clock.now();
    if (this.#epoch !== null) this.#context.admissions.seen(this.agentUid, this.#epoch);
  }

  #send(frame: string): void {
    this.#lastSpokeMs = this.#context.clock.now();
    this.#socket.send(frame);
  }

  #refuse(code: ErrorCode): void {
    this.#context.report.refusedFrame(this.name, code);
  }

  #ended(): void {
    this.#leavePhase('closed');
    for (const id of [...this.#barriers.keys()]) this.#settleBarrier(id, false);
    this.#links.remove(this);
    this.#context.report.closed(this.name, this.#closeReason);
    this.#giveUpAgent().catch((error) => this.#context.report.error(error, 'a departure could not be written'));
  }
}
