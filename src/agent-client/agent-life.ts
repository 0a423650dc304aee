/** How a v1 agent lives: one connection after another, what keeps each alive, and what follows when one ends. */
import type { AgentEvent, AgentState, ReceivedCommand } from './agent-events.ts';
import { AgentFailure } from './agent-failure.ts';
import { agentIds } from './agent-ids.ts';
import { authenticate, crashOnShortToken, type HandshakeParts, register } from './handshake.ts';
import type { Journal } from './journal.ts';
import { dial, type Link } from './link.ts';
import { MessageComposer } from './message-composer.ts';
import { ReadyGate } from './ready-gate.ts';
import { openSession, type Session } from './session.ts';
import { readCommand } from './v1-commands.ts';
import { encodeSecureMessage } from './v1-frames.ts';
import type { V1AgentSettings } from './v1-options.ts';

/** How long the closing handshake may take before the connection is cut. */
const closingMs = 1_000;

export class AgentLife {
  /** Open while there is a connection to speak over. */
  readonly gate = new ReadyGate();
  readonly composer: MessageComposer;
  readonly #settings: V1AgentSettings;
  readonly #commands: Journal<ReceivedCommand>;
  readonly #events: Journal<AgentEvent>;
  readonly #handshake: HandshakeParts;
  readonly #links = new Map<number, Link>();
  readonly #closing = new AbortController();
  #state: AgentState = 'connecting';
  #session: Session | null = null;
  #isAttempting = false;
  #attempt: Promise<void> = Promise.resolve();
  #linkCount = 0;
  #failureCount = 0;
  #hasDropped = false;
  #hasGivenUp = false;
  #cancelRedial: () => void = () => undefined;

  /** Dials at once, and records what comes of it. */
  constructor(settings: V1AgentSettings, commands: Journal<ReceivedCommand>, events: Journal<AgentEvent>) {
    const parts = { ...settings, ids: agentIds(settings.clock, settings.randomBytes) };
    this.composer = new MessageComposer(parts);
    this.#settings = settings;
    this.#commands = commands;
    this.#events = events;
    this.#handshake = { ...parts, answerTimeoutMs: settings.timings.answerTimeoutMs };
    this.#connect();
  }

  get state(): AgentState {
    return this.#state;
  }

  /** The connection that the agent speaks over, null while there is none. */
  get session(): Session | null {
    return this.#session;
  }

  /** Connections attempted. */
  get linkCount(): number {
    return this.#linkCount;
  }

  /** Attempts that came to nothing. */
  get failureCount(): number {
    return this.#failureCount;
  }

  /** Whether it will never dial again. */
  get hasGivenUp(): boolean {
    return this.#hasGivenUp;
  }

  /** A ping with the body `heartbeat`, then the frame. */
  async beat(link: Link, sealingKey: Uint8Array): Promise<void> {
    // A pong that never comes is no error of its own: the connection's end is told by its close.
    link.ping('heartbeat').catch(() => undefined);
    await link.send(encodeSecureMessage(this.composer.heartbeat(sealingKey)));
  }

  /** Cuts every connection without a close frame; nothing follows. */
  terminate(): void {
    this.#end('closed', new AgentFailure('AGENT_CLOSED', 'terminated'));
    for (const link of this.#links.values()) link.terminate();
  }

  /** Closes the current connection with a closing handshake and cuts the others; nothing follows. */
  async close(code: number, reason: string): Promise<void> {
    const current = this.#session?.link;
    this.#end('closed', new AgentFailure('AGENT_CLOSED', 'closed'));
    current?.close(code, reason);
    const cut = setTimeout(() => current?.terminate(), closingMs);
    for (const link of this.#links.values()) if (link !== current) link.terminate();
    await Promise.all([this.#attempt, ...Array.from(this.#links.values(), (link) => link.closed)]);
    clearTimeout(cut);
  }

  #connect(): void {
    if (this.#isAttempting || this.#isOver()) return;
    this.#isAttempting = true;
    this.#linkCount += 1;
    if (!this.#session) this.#state = 'connecting';
    this.#attempt = this.#openLink(this.#linkCount);
  }

  async #openLink(number: number): Promise<void> {
    const startedMs = this.#settings.clock.nowMs();
    try {
      const link = await this.#dial(number);
      this.#links.set(number, link);
      if (this.#isOver()) throw new AgentFailure('AGENT_CLOSED', 'while dialling');
      this.#events.record({ type: 'connected', link: number });
      const session = await this.#shakeHands(link);
      if (this.#isOver()) return;
      this.#adopt(session);
      this.#events.record({ type: 'ready', link: number, handshakeMs: this.#settings.clock.nowMs() - startedMs });
      this.gate.open();
    } catch (error) {
      this.#attemptFailed(number, asFailure(error));
    }
  }

  async #dial(number: number): Promise<Link> {
    const { clock, headers, identity, socket, timings, url } = this.#settings;
    if (identity.registration) crashOnShortToken('bootstrap_token', identity.registration.bootstrapToken);
    return dial({
      url,
      headers: { ...identity.upgradeHeaders(), ...headers },
      clock,
      dialTimeoutMs: timings.dialTimeoutMs,
      socket,
      signal: this.#closing.signal,
      number,
      onPing: (body) => this.#events.record({ type: 'pinged', link: number, body }),
      onClosed: (code, reason) => this.#linkClosed(number, code, reason),
    });
  }

  async #shakeHands(link: Link): Promise<Session> {
    const { dialect, facts, habits, identity } = this.#settings;
    const { sessionToken, expiresAt, backendKey } = await authenticate(link, this.#handshake);
    this.#events.record({ type: 'authenticated', link: link.number, sessionToken, expiresAt });
    const session = openSession({ link, dialect, identity, backendKey, opensCommands: habits.opensCommands });
    if (dialect === 'enveloped') {
      await this.beat(link, session.sealingKey);
      if (habits.registers && !identity.registration) {
        const registration = await register(link, this.#handshake, facts);
        identity.registration = registration;
        this.#events.record({ type: 'registered', link: link.number, ...registration });
      }
    }
    if (link.failure) throw link.failure;
    return session;
  }

  /** Makes this the connection that the agent speaks over; the one before it is abandoned, open as it may be. */
  #adopt(session: Session): void {
    const { habits, timings } = this.#settings;
    const previous = this.#session;
    this.#isAttempting = false;
    this.#session = session;
    this.#state = 'ready';
    if (previous) this.#abandon(previous);
    this.#scheduleHeartbeat(session);
    if (habits.flaps === 'always' || (habits.flaps === 'after-drop' && this.#hasDropped)) this.#scheduleFlap(session);
    session.link.startReading(timings.readDeadlineMs, (text) => this.#receive(session, text));
  }

  #abandon(session: Session): void {
    const { clock, habits, timings } = this.#settings;
    session.cancelTimers();
    if (!habits.readsAbandoned) session.link.stopReading();
    session.timers.set(
      'linger',
      clock.schedule(timings.abandonedLingerMs, () => session.link.terminate()),
    );
    void session.link.closed.then(() => session.cancelTimers());
    this.#events.record({ type: 'abandoned', link: session.link.number });
  }

  #receive(session: Session, text: string): void {
    const link = session.link.number;
    const reading = readCommand(this.#settings.identity.suite, session.openingKey, text);
    if (!reading.ok) {
      this.#events.record({ type: 'frame-dropped', link, reason: reading.reason, channel: reading.channel });
      return;
    }
    const { frame } = reading.command;
    const receivedAtMs = this.#settings.clock.nowMs();
    this.#commands.record({ ...reading.command, id: frame.id, channel: frame.channel, link, receivedAtMs });
  }

  #scheduleHeartbeat(session: Session): void {
    const { clock, timings } = this.#settings;
    const beat = (): void => {
      this.#scheduleHeartbeat(session);
      // A heartbeat that cannot be written changes nothing: the connection's end is told by its close.
      this.beat(session.link, session.sealingKey).catch(() => undefined);
    };
    session.timers.set('heartbeat', clock.schedule(timings.heartbeatIntervalMs, beat));
  }

  #scheduleFlap(session: Session): void {
    const { clock, habits, randomBytes, timings } = this.#settings;
    const fraction = Buffer.from(randomBytes(4)).readUInt32BE() / 2 ** 32;
    const delayMs = timings.flapMinMs + fraction * (timings.flapMaxMs - timings.flapMinMs);
    const flap = (): void => {
      if (!habits.overlaps) this.#letGo(session).terminate();
      this.#connect();
    };
    session.timers.set('flap', clock.schedule(delayMs, flap));
  }

  #linkClosed(number: number, code: number, reason: string): void {
    this.#links.delete(number);
    this.#events.record({ type: 'closed', link: number, code, reason });
    if (this.#session?.link.number !== number) return;
    this.#letGo(this.#session);
    if (this.#isOver()) return;
    this.#hasDropped = true;
    this.#state = this.#isAttempting ? 'connecting' : 'waiting';
    if (!this.#isAttempting) this.#redial();
  }

  #attemptFailed(number: number, failure: AgentFailure): void {
    this.#isAttempting = false;
    this.#links.get(number)?.terminate();
    if (this.#isOver()) return;
    this.#failureCount += 1;
    this.#events.record({ type: 'failed', link: number, failure });
    if (failure.code === 'CRASHED') {
      this.#end('crashed', failure);
      this.#events.record({ type: 'crashed', failure });
      for (const link of this.#links.values()) link.terminate();
    } else {
      this.#redial(failure);
    }
  }

  /** After a drop, or after a failed attempt: waits for the next dial, or never dials again. */
  #redial(failure?: AgentFailure): void {
    const { clock, habits, timings } = this.#settings;
    this.#hasGivenUp ||=
      habits.reconnects === 'never' || (habits.reconnects === 'until-refused' && failure !== undefined);
    this.#cancelRedial();
    if (!this.#hasGivenUp) {
      if (!this.#session) this.#state = 'waiting';
      this.#cancelRedial = clock.schedule(timings.redialDelayMs, () => this.#connect());
    } else if (!this.#session) {
      this.#events.record({ type: 'stranded' });
      this.#end('stranded', failure ?? new AgentFailure('NOT_CONNECTED', 'it does not dial again'));
    }
    // A flapping agent whose new dial fails still has its old connection: it is stranded when that one ends.
  }

  #letGo(session: Session): Link {
    session.cancelTimers();
    this.#session = null;
    this.gate.shut();
    return session.link;
  }

  #isOver(): boolean {
    return this.#state === 'closed' || this.#state === 'crashed' || this.#state === 'stranded';
  }

  #end(state: AgentState, failure: AgentFailure): void {
    this.#state = state;
    this.#cancelRedial();
    if (this.#session) this.#letGo(this.#session);
    this.gate.lock(failure);
    this.#closing.abort();
  }
}

function asFailure(error: unknown): AgentFailure {
  if (error instanceof AgentFailure) return error;
  return new AgentFailure('DIAL_REFUSED', error instanceof Error ? error.message : String(error));
}
