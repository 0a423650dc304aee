import { WebSocket } from 'ws';
import { z } from 'zod';
import {
  type AuthenticationRequest,
  authenticationRequest,
  encodeEnvelopedAuthentication,
  encodeHandoffAuthentication,
  encodeRegistration,
  encodeRegistrationComplete,
  encodeSecureMessage,
  envelopedMessage,
  type MessageBody,
  type SecureMessage,
} from '../../src/agent-client/index.ts';
import { nativeCrypto } from '../../src/agent-gateway/crypto/native.ts';
import type { SigningKey } from '../../src/agent-gateway/crypto/suite.ts';
import { eventually } from '../support/eventually.ts';

const frameSchema = z.strictObject({
  id: z.string(),
  type: z.string(),
  channel: z.string(),
  payload: z.string(),
  timestamp: z.int(),
  nonce: z.string(),
  signature: z.string(),
  headers: z.strictObject({}),
});
export type Frame = z.infer<typeof frameSchema>;

const jsonObject = z.record(z.string(), z.unknown());
export type JsonObject = z.infer<typeof jsonObject>;

export interface DialOptions {
  readonly url: string;
  readonly agentId?: string;
  readonly key?: SigningKey;
  readonly dialect?: 'enveloped' | 'handoff';
  /** In place of the agent's own. */
  readonly headers?: Readonly<Record<string, string>>;
  /** Whose certificates are believed, PEM; Node's own list where absent. */
  readonly ca?: string;
  /** Pongs are held back where false: the agent looks half-open. */
  readonly answersPings?: boolean;
  /** Milliseconds since 1970, for timestamps; the machine's clock where absent. */
  readonly now?: () => number;
}

let agentCount = 0;
let messageCount = 0;

/** A name that no other test of this process has. */
export function freshName(): string {
  return `host-${process.pid}-${++agentCount}.example.net`;
}

/** An agent made by hand, frame by frame: what a test wants on the wire goes there as it is, and what comes is kept in order. */
export class RawAgent {
  readonly agentId: string;
  readonly key: SigningKey;
  readonly publicKey: string;
  readonly socket: WebSocket;
  /** Text frames and pings in the order in which they came; a ping is `ping <body>`. */
  readonly received: string[] = [];
  readonly closed: Promise<{ readonly code: number; readonly reason: string }>;
  /** Given at registration. */
  uid: string | null = null;
  bootstrapToken: string | null = null;
  readonly #dialect: 'enveloped' | 'handoff';
  readonly #now: () => number;
  #read = 0;
  #count = 0;

  private constructor(options: DialOptions) {
    this.agentId = options.agentId ?? freshName();
    this.key = options.key ?? nativeCrypto.generateSigningKey();
    this.publicKey = Buffer.from(this.key.publicKey).toString('base64');
    this.#dialect = options.dialect ?? 'enveloped';
    this.#now = options.now ?? Date.now;
    this.socket = new WebSocket(options.url, {
      headers: options.headers ?? { 'X-Agent-ID': this.agentId, 'X-Agent-Public-Key': this.publicKey },
      perMessageDeflate: false,
      ...(options.ca === undefined ? {} : { ca: options.ca }),
      autoPong: options.answersPings ?? true,
    });
    this.socket.on('message', (data) => this.received.push(data.toString()));
    this.socket.on('ping', (body) => this.received.push(`ping ${body}`));
    this.socket.on('error', () => {});
    this.closed = new Promise((resolve) => {
      this.socket.once('close', (code, reason) => resolve({ code, reason: reason.toString() }));
    });
  }

  static async dial(options: DialOptions): Promise<RawAgent> {
    const agent = new RawAgent(options);
    await eventually(() => agent.socket.readyState !== WebSocket.CONNECTING);
    return agent;
  }

  /** Dials and authenticates; throws where that is refused. */
  static async authenticated(options: DialOptions): Promise<RawAgent> {
    const agent = await RawAgent.dial(options);
    const answer = await agent.authenticate();
    if (answer.success !== true) throw new Error(`refused: ${JSON.stringify(answer)}`);
    return agent;
  }

  /** Dials, authenticates and registers. */
  static async registered(options: DialOptions & { readonly facts?: JsonObject }): Promise<RawAgent> {
    const agent = await RawAgent.authenticated(options);
    const answer = await agent.register(options.facts);
    if (agent.uid === null) throw new Error(`not registered: ${JSON.stringify(answer)}`);
    return agent;
  }

  get timestamp(): number {
    return Math.floor(this.#now() / 1_000);
  }

  get isOpen(): boolean {
    return this.socket.readyState === WebSocket.OPEN;
  }

  /** The next text frame, whatever it is. */
  async nextText(timeoutMs = 5_000): Promise<string> {
    return eventually(() => {
      while (this.received[this.#read]?.startsWith('ping ')) this.#read++;
      const text = this.received[this.#read];
      if (text !== undefined) this.#read++;
      return text;
    }, timeoutMs);
  }

  async nextFrame(timeoutMs?: number): Promise<Frame> {
    return frameSchema.parse(JSON.parse(await this.nextText(timeoutMs)));
  }

  request(fields: { readonly nonce?: Uint8Array; readonly timestamp?: number } = {}): AuthenticationRequest {
    const { nonce = nativeCrypto.randomBytes(16), timestamp = this.timestamp } = fields;
    return authenticationRequest({ key: this.key, agentId: this.agentId, timestamp, nonce });
  }

  /** Sends an authentication and gives the body of its answer. */
  async authenticate(request: AuthenticationRequest = this.request()): Promise<JsonObject> {
    this.socket.send(this.encodeAuthentication(request));
    return this.readAuthAnswer();
  }

  encodeAuthentication(request: AuthenticationRequest): string {
    return this.#dialect === 'handoff'
      ? encodeHandoffAuthentication(request)
      : encodeEnvelopedAuthentication(`auth_${++this.#count}`, request);
  }

  /** Reads an answer in the agent's own dialect, and throws where it came in the other one. */
  async readAuthAnswer(): Promise<JsonObject> {
    if (this.#dialect === 'handoff') return jsonObject.parse(JSON.parse(await this.nextText()));
    const frame = await this.nextFrame();
    if (frame.channel !== 'auth' || frame.type !== 'response') throw new Error(`no answer: ${JSON.stringify(frame)}`);
    return jsonObject.parse(JSON.parse(Buffer.from(frame.payload, 'base64').toString()));
  }

  /** The whole dialogue; gives the last answer, and keeps the uid where there is one. */
  async register(facts: JsonObject = {}): Promise<JsonObject> {
    const challenge = await this.beginRegistration(facts);
    return 'error' in challenge ? challenge : this.completeRegistration(challenge);
  }

  async beginRegistration(facts: JsonObject = {}): Promise<JsonObject> {
    const id = `reg_init_${++this.#count}`;
    this.socket.send(
      encodeRegistration(id, this.timestamp, {
        ...{ org_id: 'default-org', host_id: this.agentId, agent_pubkey: this.publicKey, machine_id_hash: 'hash' },
        ...{ agent_version: '1.0.0', capabilities: {}, platform: { os: 'linux' }, network: {} },
        ...facts,
      }),
    );
    return this.#plainAnswer('agent.registration');
  }

  async completeRegistration(challenge: JsonObject, proof: { readonly hostId?: string } = {}): Promise<JsonObject> {
    const { registration_id, nonce, server_time } = z
      .strictObject({ registration_id: z.uuid(), nonce: z.base64(), server_time: z.string() })
      .parse(challenge);
    this.socket.send(
      encodeRegistrationComplete({
        id: `reg_complete_${++this.#count}`,
        timestamp: this.timestamp,
        key: this.key,
        registrationId: registration_id,
        nonce: Buffer.from(nonce, 'base64'),
        serverTime: server_time,
        hostId: proof.hostId ?? this.agentId,
      }),
    );
    const answer = await this.#plainAnswer('agent.registration.complete');
    const registered = z.object({ agent_uid: z.uuid(), bootstrap_token: z.string() }).safeParse(answer);
    if (registered.success) {
      this.uid = registered.data.agent_uid;
      this.bootstrapToken = registered.data.bootstrap_token;
    }
    return answer;
  }

  async #plainAnswer(channel: string): Promise<JsonObject> {
    const frame = await this.nextFrame();
    if (frame.channel !== channel) throw new Error(`expected an answer on ${channel}, got ${JSON.stringify(frame)}`);
    return jsonObject.parse(JSON.parse(frame.payload));
  }

  /** A message as an enveloped agent signs it. */
  message(kind: string, body: MessageBody, fields: Partial<SecureMessage> = {}): SecureMessage {
    const signed = envelopedMessage({
      key: this.key,
      id: `msg_${this.timestamp}_${++messageCount}`,
      type: 'event',
      channel: `agent.${kind}`,
      timestamp: fields.timestamp ?? this.timestamp,
      nonce: Buffer.from('message_nonc'),
      body,
      identifier: this.uid ?? this.agentId,
    });
    return { ...signed, ...fields };
  }

  /** Reports an event; gives the id of its message. */
  report(kind: string, body: MessageBody, fields: Partial<SecureMessage> = {}): string {
    const message = this.message(kind, body, fields);
    this.socket.send(encodeSecureMessage(message));
    return message.id;
  }

  /** Headers of a reconnect, as an agent sends them that has registered. */
  reconnectHeaders(): Record<string, string> {
    return {
      'X-Agent-ID': this.uid ?? this.agentId,
      'X-Agent-Public-Key': this.publicKey,
      ...(this.uid ? { 'X-Agent-UID': this.uid } : {}),
      ...(this.bootstrapToken ? { 'X-Bootstrap-Token': this.bootstrapToken } : {}),
    };
  }

  /** Resolves when everything sent before has been read by the gateway: its pong says so. */
  async settled(): Promise<void> {
    const body = `settled-${++this.#count}`;
    const ponged = new Promise<void>((resolve) => {
      const listen = (data: Buffer) => {
        if (data.toString() !== body) return;
        this.socket.off('pong', listen);
        resolve();
      };
      this.socket.on('pong', listen);
    });
    this.socket.ping(body);
    await ponged;
  }

  terminate(): void {
    this.socket.terminate();
  }
}
