import { randomUUID } from 'node:crypto';
import type { Socket } from 'node:net';
import { TLSSocket } from 'node:tls';
import { type ClientOptions, WebSocket } from 'ws';
import { nativeCrypto } from '../../src/agent-gateway/crypto/native.ts';
import type { SigningKey } from '../../src/agent-gateway/crypto/suite.ts';
import { type InitiatorOptions, V2Initiator } from '../../src/agent-gateway/crypto/v2-initiator.ts';
import { signRotation } from '../../src/agent-gateway/crypto/v2-key-rotation.ts';
import type { V2Session } from '../../src/agent-gateway/crypto/v2-session.ts';
import type { V2Identity } from '../../src/agent-gateway/wire/v2-identity.ts';
import { v2Subprotocol } from '../../src/agent-gateway/wire/v2-limits.ts';
import {
  decodeBatch,
  encodeBatch,
  type V2Message,
  type V2OutgoingMessage,
} from '../../src/agent-gateway/wire/v2-message.ts';
import {
  decodeSessionGrant,
  encodeKeyRotation,
  type SessionGrant,
} from '../../src/agent-gateway/wire/v2-session-channel.ts';
import { eventually } from '../support/eventually.ts';
import { freshName } from './raw-agent.ts';

export interface V2DialOptions {
  readonly url: string;
  /** The gateway keys that are trusted, by fingerprint. */
  readonly pins: readonly string[];
  readonly name?: string;
  readonly key?: SigningKey;
  readonly identity?: Partial<V2Identity>;
  readonly initiator?: Partial<InitiatorOptions>;
  readonly socket?: ClientOptions;
  /** Binds the handshake to the TLS connection. */
  readonly bindsToTls?: boolean;
  /** Milliseconds since 1970, for timestamps; the machine's clock where absent. */
  readonly now?: () => number;
}

export type V2Draft = Partial<Omit<V2OutgoingMessage, 'payloadText'>> & { readonly payload?: unknown };

/** A v2 agent made by hand, step by step: what a test wants on the wire goes there as it is. */
export class RawV2Agent {
  readonly name: string;
  readonly key: SigningKey;
  readonly socket: WebSocket;
  /** Frames as they came. */
  readonly frames: { readonly data: Buffer; readonly isBinary: boolean }[] = [];
  /** Messages of every record after M4, in their order. */
  readonly received: V2Message[] = [];
  readonly closed: Promise<{ readonly code: number; readonly reason: string }>;
  readonly #now: () => number;
  #initiator: V2Initiator | null = null;
  #session: V2Session | null = null;
  #grant: SessionGrant | null = null;
  #read = 0;

  private constructor(options: V2DialOptions) {
    this.name = options.name ?? freshName();
    this.key = options.key ?? nativeCrypto.generateSigningKey();
    this.#now = options.now ?? Date.now;
    this.socket = new WebSocket(options.url, v2Subprotocol, { perMessageDeflate: false, ...options.socket });
    this.socket.on('error', () => {});
    this.socket.once('upgrade', ({ socket }) => {
      this.#initiator = new V2Initiator({
        ...{ suite: nativeCrypto, signingKey: this.key, pins: options.pins },
        identity: { agentId: this.name, orgId: null, enroll: null, ...options.identity },
        exporter: options.bindsToTls ? exporterOf(socket) : null,
        ...options.initiator,
      });
    });
    this.socket.on('message', (data, isBinary) => {
      if (!(data instanceof Buffer)) return;
      this.frames.push({ data, isBinary });
      if (isBinary && this.#session) this.#take(data);
    });
    this.closed = new Promise((resolve) => {
      this.socket.once('close', (code, reason) => resolve({ code, reason: reason.toString() }));
    });
  }

  /** Upgraded, and nothing said yet. */
  static async dial(options: V2DialOptions): Promise<RawV2Agent> {
    const agent = new RawV2Agent(options);
    await eventually(() => agent.socket.readyState !== WebSocket.CONNECTING);
    return agent;
  }

  /** Let in: M4 has come. */
  static async connected(options: V2DialOptions): Promise<RawV2Agent> {
    const agent = await RawV2Agent.dial(options);
    agent.socket.send(agent.initiator.m1);
    agent.socket.send(await agent.answerToM2());
    await agent.granted();
    return agent;
  }

  get initiator(): V2Initiator {
    if (!this.#initiator) throw new Error('the gateway has not upgraded the connection');
    return this.#initiator;
  }

  get session(): V2Session {
    if (!this.#session) throw new Error('no handshake has been made');
    return this.#session;
  }

  get grant(): SessionGrant {
    if (!this.#grant) throw new Error('no session has been granted');
    return this.#grant;
  }

  get uid(): string {
    return this.grant.agentUid;
  }

  get isOpen(): boolean {
    return this.socket.readyState === WebSocket.OPEN;
  }

  get publicKey(): string {
    return Buffer.from(this.key.publicKey).toString('base64');
  }

  /** M3, once M2 has come. The session is there from then on. */
  async answerToM2(): Promise<string> {
    const m2 = await eventually(() => this.frames[0]);
    const step = this.initiator.takeM2(m2.data.toString());
    if (!step.ok) throw new Error(`M2 is refused: ${step.cause}`);
    this.#session = step.value.session;
    return step.value.m3;
  }

  async granted(): Promise<SessionGrant> {
    return eventually(() => {
      if (!this.isOpen && !this.#grant) throw new Error('the gateway does not let the agent in');
      return this.#grant;
    });
  }

  /** The message of a draft: an event on `agent.anomalies` unless it says otherwise. */
  message({ payload = { severity: 'low' }, ...draft }: V2Draft = {}): V2OutgoingMessage {
    const payloadText = JSON.stringify(payload);
    return {
      id: randomUUID(),
      type: 'event',
      channel: 'agent.anomalies',
      timestampMs: this.#now(),
      payloadText,
      ...draft,
    };
  }

  /** Sends one record with these messages, and gives their ids. */
  send(...drafts: readonly V2Draft[]): string[] {
    const messages = drafts.map((draft) => this.message(draft));
    this.socket.send(this.session.sealer.seal(encodeBatch(messages)));
    return messages.map(({ id }) => id);
  }

  /** Sends one record with one message, and gives its id. */
  say(draft: V2Draft = {}): string {
    return this.send(draft)[0] ?? '';
  }

  acknowledge(...ids: readonly string[]): void {
    this.send({ type: 'ack', channel: 'session', payload: {}, headers: { ackFor: ids } });
  }

  /** Asks for another key in the place of this one; gives the id of the request. */
  rotate(newKey: SigningKey): string {
    const payload = encodeKeyRotation(signRotation(this.session, this.key, newKey));
    return this.say({ type: 'request', channel: 'session', payload });
  }

  /** The ids that the gateway has acknowledged so far. */
  get acknowledged(): string[] {
    return this.received.flatMap(({ type, headers }) => (type === 'ack' ? headers.ackFor : []));
  }

  async untilAcknowledged(ids: readonly string[], timeoutMs?: number): Promise<void> {
    await eventually(() => {
      const known = new Set(this.acknowledged);
      return ids.every((id) => known.has(id));
    }, timeoutMs);
  }

  /** The next message that is no acknowledgement. */
  async next(timeoutMs?: number): Promise<V2Message> {
    return eventually(() => {
      while (this.received[this.#read]?.type === 'ack') this.#read++;
      const message = this.received[this.#read];
      if (message) this.#read++;
      return message;
    }, timeoutMs);
  }

  terminate(): void {
    this.socket.terminate();
  }

  #take(frame: Buffer): void {
    const record = this.session.opener.open(frame);
    const batch = record.ok ? decodeBatch(record.json, 10_000) : record;
    if (!batch.ok) throw new Error(`the gateway's record is not sound: ${JSON.stringify(batch)}`);
    if (this.#grant) return void this.received.push(...batch.value);
    const grant = decodeSessionGrant(batch.value[0]?.payload);
    if (!grant.ok || batch.value.length !== 1) throw new Error('the first record is not M4');
    this.#grant = grant.value;
  }
}

/** RFC 9266. */
function exporterOf(socket: Socket): Uint8Array {
  if (!(socket instanceof TLSSocket)) throw new Error('the connection is no TLS connection');
  return socket.exportKeyingMaterial(32, 'EXPORTER-Channel-Binding', Buffer.alloc(0));
}
