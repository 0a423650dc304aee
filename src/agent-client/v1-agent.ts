/**
 * A live agent of protocol v1, as deployed. It dials as soon as it is started and then leads its own life: handshake,
 * heartbeats, reconnects and whatever its habits add to them.
 *
 *     const agent = startV1Agent({ url, agentId: 'db-7.example.net' });
 *     await agent.ready();
 *     await agent.sendEvent('anomalies', { type: 'beaconing', severity: 'high' });
 *     const command = await agent.commands.next((received) => received.kind === 'policies');
 *     await agent.close();
 */
import type { SigningKey } from '../agent-gateway/crypto/suite.ts';
import type { EventKind } from '../agent-gateway/wire/channels.ts';
import type { AgentEvent, AgentEventOf, AgentEventType, AgentState, ReceivedCommand } from './agent-events.ts';
import { AgentFailure } from './agent-failure.ts';
import { AgentLife } from './agent-life.ts';
import type { AgentIdentity } from './identity.ts';
import { Journal, type WaitOptions } from './journal.ts';
import type { EventOptions } from './message-composer.ts';
import type { Session } from './session.ts';
import { encodeSecureMessage, type MessageBody, type SecureMessage } from './v1-frames.ts';
import { settleOptions, type V1AgentOptions, type V1AgentSettings } from './v1-options.ts';

/** A frame that has been written, to be looked at or sent again. */
export interface SentEvent {
  readonly message: SecureMessage;
  /** The frame as it went out; `sendRaw` repeats it. */
  readonly text: string;
}

/** Starts an agent. It never throws for what the network does: see `ready`, `state` and `events`. */
export function startV1Agent(options: V1AgentOptions): V1Agent {
  return new V1Agent(settleOptions(options));
}

export class V1Agent {
  /** The commands it has acted on. */
  readonly commands: Journal<ReceivedCommand>;
  /** What has become of it and its connections. */
  readonly events: Journal<AgentEvent>;
  readonly #identity: AgentIdentity;
  readonly #life: AgentLife;

  constructor(settings: V1AgentSettings) {
    this.#identity = settings.identity;
    this.commands = new Journal(`command to ${this.agentId}`, settings.journalLimit);
    this.events = new Journal(`event of ${this.agentId}`, settings.journalLimit);
    this.#life = new AgentLife(settings, this.commands, this.events);
  }

  get state(): AgentState {
    return this.#life.state;
  }

  get agentId(): string {
    return this.#identity.agentId;
  }

  /** Its key pair, for frames made by hand. */
  get key(): SigningKey {
    return this.#identity.key;
  }

  /** 32 bytes; start another agent with them and it has the same key. */
  get seed(): Uint8Array {
    return this.#identity.seed;
  }

  /** Given at registration, null before it. */
  get uid(): string | null {
    return this.#identity.registration?.uid ?? null;
  }

  get bootstrapToken(): string | null {
    return this.#identity.registration?.bootstrapToken ?? null;
  }

  /** Connections dialled so far. */
  get linkCount(): number {
    return this.#life.linkCount;
  }

  /** Dials and handshakes that came to nothing. */
  get failureCount(): number {
    return this.#life.failureCount;
  }

  /** Whether it will never dial again, dead or still on the connection that it has. */
  get isStranded(): boolean {
    return this.#life.hasGivenUp;
  }

  /** Bytes written that the operating system has not taken yet. */
  get bufferedBytes(): number {
    return this.#life.session?.link.bufferedBytes ?? 0;
  }

  /**
   * Resolves when a handshake is over and messages can be sent, at once if one is. Rejects with the AgentFailure that
   * ended the agent, or with an Error after `timeoutMs` (10,000 where absent).
   */
  ready(options: WaitOptions = {}): Promise<void> {
    return this.#life.gate.pass(options.timeoutMs ?? 10_000);
  }

  /** The next event of this type that no earlier call was given; see `Journal.next`. */
  nextEvent<Type extends AgentEventType>(type: Type, options?: WaitOptions): Promise<AgentEventOf<Type>> {
    return this.events.next((event): event is AgentEventOf<Type> => event.type === type, options);
  }

  /**
   * Reports an event; resolves when the frame has been written. A body of bytes is taken as it is. Rejects with
   * `NOT_CONNECTED` or `LINK_CLOSED`.
   */
  async sendEvent(kind: EventKind, body: MessageBody, options: EventOptions = {}): Promise<SentEvent> {
    const { link, sealingKey } = this.#connected();
    const message = this.#life.composer.event(kind, body, options, sealingKey);
    const text = encodeSecureMessage(message);
    await link.send(text);
    return { message, text };
  }

  /** Writes a text frame as it is, or bytes as a binary frame. Rejects as `sendEvent` does. */
  async sendRaw(content: string | Uint8Array): Promise<void> {
    await this.#connected().link.send(content);
  }

  /** A heartbeat out of turn: a ping with the body `heartbeat`, then the frame. */
  async sendHeartbeat(): Promise<void> {
    const { link, sealingKey } = this.#connected();
    await this.#life.beat(link, sealingKey);
  }

  /** Sends a ping; resolves when its pong has come. Rejects as `sendEvent` does. */
  async ping(body = ''): Promise<void> {
    await this.#connected().link.ping(body);
  }

  /** Cuts its connection, as a network does; its habits say what follows. */
  drop(): void {
    this.#life.session?.link.terminate();
  }

  /** Ends the process: every connection is cut without a close frame, and nothing follows. */
  terminate(): void {
    this.#life.terminate();
  }

  /** Ends the process with a closing handshake; resolves when every connection is closed. */
  async close(code = 1000, reason = ''): Promise<void> {
    await this.#life.close(code, reason);
  }

  #connected(): Session {
    const { session, state } = this.#life;
    if (!session) throw new AgentFailure('NOT_CONNECTED', `the agent is ${state}`);
    return session;
  }
}
