/** One WebSocket connection of an agent: dialling, reading frame by frame, pings, and the read deadline. */
import { type ClientOptions, type RawData, WebSocket } from 'ws';
import { AgentFailure } from './agent-failure.ts';
import type { AgentClock } from './clock.ts';

export interface DialOptions {
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly clock: AgentClock;
  readonly dialTimeoutMs: number;
  /** TLS trust and the like, handed to `ws`. */
  readonly socket?: ClientOptions;
  /** Ends a dial that is under way; it rejects then with `AGENT_CLOSED`. */
  readonly signal: AbortSignal;
  /** Counts the connections of an agent from 1. */
  readonly number: number;
  /** A ping of the other side; its pong goes out by itself, after all that was read before it. */
  readonly onPing: (body: string) => void;
  /** Called exactly once, whoever closed. 1006 is a connection that broke without a close frame. */
  readonly onClosed: (code: number, reason: string) => void;
}

interface AwaitedPong {
  readonly body: string;
  readonly resolve: () => void;
  readonly reject: (failure: AgentFailure) => void;
}

/**
 * Opens a connection as Go's client does: no subprotocol, no extensions. Rejects with an AgentFailure
 * (`DIAL_REFUSED`, `DIAL_TIMED_OUT`, `AGENT_CLOSED`), after which `onClosed` is not called.
 */
export function dial(options: DialOptions): Promise<Link> {
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(options.url, {
      ...options.socket,
      headers: options.headers,
      perMessageDeflate: false,
    });
    const settle = (): void => {
      cancelTimeout();
      options.signal.removeEventListener('abort', abort);
    };
    const fail = (failure: AgentFailure): void => {
      settle();
      reject(failure);
      socket.terminate();
    };
    const abort = (): void => fail(new AgentFailure('AGENT_CLOSED', 'while dialling'));
    const cancelTimeout = options.clock.schedule(options.dialTimeoutMs, () =>
      fail(new AgentFailure('DIAL_TIMED_OUT', `no answer within ${options.dialTimeoutMs} ms`)),
    );
    options.signal.addEventListener('abort', abort);
    // After the connection is open, 'close' tells all there is to know; an 'error' without a listener would throw.
    socket.on('error', (error) => fail(new AgentFailure('DIAL_REFUSED', error.message)));
    socket.once('unexpected-response', (_request, response) =>
      fail(new AgentFailure('DIAL_REFUSED', `HTTP ${response.statusCode}`, { httpStatus: response.statusCode })),
    );
    // Frames may follow the 101 in the same packet: the link listens before anything is awaited.
    socket.once('open', () => {
      settle();
      resolve(new Link(socket, options));
    });
  });
}

/** An open connection. During the handshake frames are taken one by one; afterwards each goes to a listener. */
export class Link {
  readonly number: number;
  /** Resolves when the connection has ended, whoever ended it. */
  readonly closed: Promise<void>;
  readonly #socket: WebSocket;
  readonly #clock: AgentClock;
  readonly #unread: string[] = [];
  readonly #awaitedPongs: AwaitedPong[] = [];
  #takeFrame: ((text: string) => void) | null = null;
  #failAnswer: ((failure: AgentFailure) => void) | null = null;
  #cancelDeadline: () => void = () => undefined;
  #lastReadMs: number;
  #closedBy: AgentFailure | null = null;

  constructor(socket: WebSocket, options: Pick<DialOptions, 'clock' | 'number' | 'onPing' | 'onClosed'>) {
    this.number = options.number;
    this.#socket = socket;
    this.#clock = options.clock;
    this.#lastReadMs = options.clock.nowMs();
    socket.on('message', (data) => this.#received(textOf(data)));
    socket.on('ping', (body) => options.onPing(body.toString('utf8')));
    socket.on('pong', (body) => this.#ponged(body.toString('utf8')));
    this.closed = new Promise((resolve) => {
      socket.once('close', (code, reason) => {
        this.#ended(new AgentFailure('LINK_CLOSED', `closed with ${code}`, { closeCode: code }));
        options.onClosed(code, reason.toString('utf8'));
        resolve();
      });
    });
  }

  /** Why the connection has ended, null while it has not. */
  get failure(): AgentFailure | null {
    return this.#closedBy;
  }

  /** Bytes handed to this link that the operating system has not taken yet. */
  get bufferedBytes(): number {
    return this.#socket.bufferedAmount;
  }

  /** Sends a text frame and takes the next one to come, whatever it is, for its answer. Rejects as `readAnswer` does. */
  async ask(request: string, timeoutMs: number): Promise<string> {
    const [answer] = await Promise.all([this.readAnswer(timeoutMs), this.send(request)]);
    return answer;
  }

  /** Takes the next frame, whatever it is. Rejects with `ANSWER_TIMED_OUT` or `LINK_CLOSED`. */
  readAnswer(timeoutMs: number): Promise<string> {
    const waiting = this.#unread.shift();
    if (waiting !== undefined) return Promise.resolve(waiting);
    if (this.#closedBy) return Promise.reject(this.#closedBy);
    return new Promise((resolve, reject) => {
      const settle = (): void => {
        cancelTimeout();
        this.#takeFrame = null;
        this.#failAnswer = null;
      };
      this.#takeFrame = (text) => {
        settle();
        resolve(text);
      };
      this.#failAnswer = (failure) => {
        settle();
        reject(failure);
      };
      const cancelTimeout = this.#clock.schedule(timeoutMs, () =>
        this.#failAnswer?.(new AgentFailure('ANSWER_TIMED_OUT', `no answer within ${timeoutMs} ms`)),
      );
    });
  }

  /** Ends the handshake: from here on each frame goes to `onFrame`, and silence beyond `readDeadlineMs` ends the link. */
  startReading(readDeadlineMs: number, onFrame: (text: string) => void): void {
    this.#takeFrame = onFrame;
    for (const text of this.#unread.splice(0)) onFrame(text);
    this.#lastReadMs = this.#clock.nowMs();
    if (!this.#closedBy) this.#watchDeadline(readDeadlineMs, readDeadlineMs);
  }

  /** Sends a text frame, or a binary one for bytes. Resolves when the operating system has it. */
  send(content: string | Uint8Array): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#socket.send(content, (error) => (error ? reject(this.#writeFailure(error)) : resolve()));
    });
  }

  /** Sends a ping; resolves when its pong has come. Rejects with `LINK_CLOSED`. */
  ping(body: string): Promise<void> {
    if (this.#closedBy) return Promise.reject(this.#closedBy);
    return new Promise((resolve, reject) => {
      this.#awaitedPongs.push({ body, resolve, reject });
      this.#socket.ping(body);
    });
  }

  /** The closing handshake. */
  close(code: number, reason: string): void {
    this.#socket.close(code, reason);
  }

  /** Cuts the connection without a close frame. */
  terminate(): void {
    this.#socket.terminate();
  }

  /** Stops reading: nothing is received, no ping is answered, and a close of the other side goes unnoticed. */
  stopReading(): void {
    this.#cancelDeadline();
    this.#socket.pause();
  }

  #received(text: string): void {
    this.#lastReadMs = this.#clock.nowMs();
    if (this.#takeFrame) this.#takeFrame(text);
    else this.#unread.push(text);
  }

  /** Only a pong to a ping of our own extends the read deadline. */
  #ponged(body: string): void {
    const index = this.#awaitedPongs.findIndex((awaited) => awaited.body === body);
    const [answered] = index < 0 ? [] : this.#awaitedPongs.splice(index, 1);
    if (!answered) return;
    this.#lastReadMs = this.#clock.nowMs();
    answered.resolve();
  }

  #watchDeadline(remainingMs: number, deadlineMs: number): void {
    this.#cancelDeadline = this.#clock.schedule(remainingMs, () => {
      const silentMs = this.#clock.nowMs() - this.#lastReadMs;
      if (silentMs >= deadlineMs) this.terminate();
      else this.#watchDeadline(deadlineMs - silentMs, deadlineMs);
    });
  }

  #ended(failure: AgentFailure): void {
    this.#closedBy = failure;
    this.#cancelDeadline();
    this.#failAnswer?.(failure);
    for (const awaited of this.#awaitedPongs.splice(0)) awaited.reject(failure);
  }

  #writeFailure(error: Error): AgentFailure {
    return this.#closedBy ?? new AgentFailure('NOT_CONNECTED', error.message);
  }
}

function textOf(data: RawData): string {
  if (Buffer.isBuffer(data)) return data.toString('utf8');
  return (Array.isArray(data) ? Buffer.concat(data) : Buffer.from(data)).toString('utf8');
}
