import type { ErrorCode } from '../errors.ts';
import type { NewEvent } from '../events/event.ts';
import type { Admission, LinkStanding } from '../fleet/admission.ts';
import type { CommandLink } from '../messages/command-link.ts';
import { AgentLink, type LinkConnection } from './agent-link.ts';
import type { GatewayContext } from './context.ts';
import type { SigningKey } from './crypto/suite.ts';
import type { Links } from './links.ts';
import { patiently } from './patience.ts';
import { createPingBarriers, type PingBarriers } from './ping-barriers.ts';
import type { V1Claim } from './v1-authentication.ts';
import { createV1CommandSealer } from './v1-commands.ts';
import { createV1FrameReader, type V1FrameReader } from './v1-inbound.ts';
import { answerRegistration, isRegistrationFrame } from './v1-registration.ts';
import { decodeFrame, type V1Frame } from './wire/v1.ts';

/** A text frame, or null for a binary one, of which no more needs to be known. */
export type V1Inbox = string | null;

/**
 * settling: authenticated, and it is not known yet whether a registration follows. registering: from its first frame to its
 * end. In both the agent takes whatever arrives as the answer that it waits for, so nothing else is sent.
 */
type Phase = 'settling' | 'registering' | 'ready';

/** A registration follows the authentication at once; one that has not come within this time does not come. */
const settleMs = 2_000;
/** Each wait of a registering agent times out after 10 s. */
const registrationTimeoutMs = 12_000;
/** Agents ping every 20 s. */
const patience = { pingAfterMs: 20_000, deadAfterMs: 65_000 };
/** An agent drops a link on which it has read nothing for 60 s; only data and our pongs to its pings count. */
const keepAliveAfterMs = 40_000;
/** So many commands may be on their way to the agent at once. */
const maxUnreadCommands = 10;
const maxAliases = 16;
/** As many as one group of the database's takes, about: no agent fills the groups of all. */
const maxWaitingEvents = 256;

/** One v1 agent's connection. */
export class V1Link extends AgentLink<V1Inbox> {
  readonly protocol = 'v1';
  protected readonly patience = patience;
  protected readonly maxWaitingEvents = maxWaitingEvents;
  /** The gateway's key as the agent was told it. */
  readonly #gatewayKey: SigningKey;
  readonly #claim: V1Claim;
  readonly #reader: V1FrameReader;
  readonly #barriers: PingBarriers;
  #phase: Phase;
  #cancelPhaseTimer: () => void = () => {};
  #lastSpokeMs: number;
  #endWhenReady: (() => void) | null = null;
  /** Names by which a handoff agent calls itself although they are not its own. */
  #aliases: string[] = [];

  constructor(
    connection: LinkConnection<V1Inbox> & { readonly gatewayKey: SigningKey },
    claim: V1Claim,
    admission: Admission,
    context: GatewayContext,
    links: Links,
  ) {
    super(connection, claim.agent, admission, context, links);
    this.#gatewayKey = connection.gatewayKey;
    this.#claim = claim;
    this.#lastSpokeMs = context.clock.now();
    this.#barriers = createPingBarriers(this.socket, context.clock);
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

  override start(): void {
    this.socket.on('ping', () => {
      // ws answers it, and that extends the agent's read deadline.
      this.#lastSpokeMs = this.context.clock.now();
    });
    this.socket.on('pong', (body) => this.#barriers.ponged(body.toString()));
    if (this.#phase === 'settling') this.#enter('settling', settleMs);
    super.start();
  }

  protected take(inbound: V1Inbox): Promise<void> | null {
    if (!this.isReading) return null;
    this.tookFrame();
    if (inbound === null) return this.refuse('FRAME_NOT_TEXT');
    const decoded = decodeFrame(inbound);
    if (!decoded.ok) return this.refuse(decoded.code);
    const frame = decoded.value;
    if (isRegistrationFrame(frame)) return this.isOpen ? this.#register(frame) : null;
    const nowMs = this.context.wall.now();
    const read = this.#reader.read(frame, this.standing, nowMs, this.unreadSinceMs);
    // Frames come in the order in which they were sent: those behind it have not waited either.
    if (!this.queue.isHeld && nowMs - frame.timestampMs <= this.context.clockSkewMs) this.caughtUp();
    if ('refused' in read) return this.refuse(read.refused);
    if ('foreignRef' in read && !this.#aliases.includes(read.foreignRef))
      return this.#storeUnlessForeign(read.event, read.foreignRef);
    this.#store(read.event);
    return null;
  }

  /** An agent that loses its link while it registers never comes back: it is let finish. */
  override end(closeCode: number, reason: string): void {
    if (this.#phase === 'ready') super.end(closeCode, reason);
    else this.#endWhenReady ??= () => super.end(closeCode, reason);
  }

  override checkHealth(nowMs: number): void {
    // While nothing is read no pong is heard: a hundred of them would pile up at the agent until it gives the link up.
    if (!this.queue.isHeld) super.checkHealth(nowMs);
    if (this.takesCommands && nowMs - this.#lastSpokeMs >= keepAliveAfterMs) this.#keepAlive();
  }

  #keepAlive(): void {
    const nowMs = this.context.wall.now();
    this.send(this.#sealer().keepAlive(`keep-alive-${nowMs}`, nowMs));
  }

  protected get takesCommands(): boolean {
    return this.#phase === 'ready' && this.#claim.dialect === 'enveloped';
  }

  protected commandWriter(canWrite: () => boolean): Pick<CommandLink, 'maxBatch' | 'write'> {
    const sealer = this.#sealer();
    return {
      maxBatch: maxUnreadCommands,
      write: (commands) => {
        const frames = commands.map((command) => {
          const frame = sealer.seal(command, this.context.wall.now());
          if (!canWrite() || command.expiresInMs <= 0) return null;
          this.send(frame.text);
          return frame;
        });
        // One pong confirms every frame before it.
        const isRead = frames.some((frame) => frame !== null) ? this.#barriers.raise() : Promise.resolve(false);
        const confirmation = isRead.then((read) => (read ? 'read' : 'unread'));
        return frames.map((frame) => frame && { frame, confirmation });
      },
    };
  }

  protected override endOf(standing: LinkStanding): ErrorCode | null {
    // The owner stays until the v2 link takes over, so that the agent is not gone in between.
    return super.endOf(standing) ?? (standing.refusesV1 && !this.ownsAgent ? 'AGENT_V1_REFUSED' : null);
  }

  protected override send(frame: string | Uint8Array): void {
    this.#lastSpokeMs = this.context.clock.now();
    super.send(frame);
  }

  /** An agent that reads an abandoned socket has answered by now; one that does not gets its commands over the newer link. */
  protected hush(): void {
    this.#barriers.end();
  }

  protected release(): void {
    this.#cancelPhaseTimer();
    this.#barriers.end();
  }

  async #storeUnlessForeign(event: NewEvent, ref: string): Promise<void> {
    if (await this.#isAnother(ref)) return void this.refuse('FRAME_CHANNEL_FOREIGN');
    if (this.#aliases.push(ref) > maxAliases) this.#aliases.shift();
    this.#store(event);
  }

  /** Asked for as long as the link lives: what was read must not be lost, and nothing more is read meanwhile. */
  async #isAnother(ref: string): Promise<boolean> {
    const { orgId } = this.standing;
    this.waits();
    for (;;) {
      try {
        return await patiently(this.context, 'a look at the fleet', () => this.context.agentExists(orgId, ref));
      } catch (error) {
        if (!this.isReading) throw error;
      }
    }
  }

  #store(event: NewEvent): void {
    this.store(event, (outcome) => {
      if (outcome === 'duplicate') this.refuse('FRAME_REPLAYED');
      else if (outcome === 'conflict') this.refuse('FRAME_ID_REUSED');
      else if (outcome === 'refused') this.refuse('FRAME_PAYLOAD_INVALID');
    });
  }

  async #register(frame: V1Frame): Promise<void> {
    this.detach();
    this.#enter('registering', registrationTimeoutMs);
    const { text, agentUid } = await answerRegistration(frame, this, this.context);
    if (agentUid !== null) await this.#adopt(agentUid);
    this.send(text);
    if (agentUid !== null) this.#becomeReady('registering');
  }

  /** The registration may have put the agent into another organisation, and so made it another agent. */
  async #adopt(agentUid: string): Promise<void> {
    try {
      await this.adopt(agentUid);
    } catch (error) {
      // The agent waits for its answer; how the link stands is looked up again and again.
      this.context.report.error(error, 'a registered agent could not be looked up');
    }
  }

  #becomeReady(from: Phase): void {
    if (!this.isOpen || this.#phase !== from) return;
    this.#enter('ready');
    if (this.#endWhenReady) this.#endWhenReady();
    else this.attachIfReady();
  }

  /** Enters a phase, which gives way to `ready` after `readyAfterMs` where that is given. */
  #enter(phase: Phase, readyAfterMs?: number): void {
    this.#cancelPhaseTimer();
    this.#phase = phase;
    this.#cancelPhaseTimer =
      readyAfterMs === undefined
        ? () => {}
        : // A busy loop runs its timers first: what has arrived by now is read before the time is up.
          this.context.clock.after(readyAfterMs, () => setImmediate(() => this.#becomeReady(phase)));
  }

  #sealer() {
    const { suite } = this.context;
    return createV1CommandSealer(suite, this.#gatewayKey, this.#claim.publicKeyBytes);
  }
}
