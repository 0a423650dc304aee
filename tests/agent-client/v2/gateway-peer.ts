/** A gateway of the test's own: real sockets, the real handshake, and nothing that happens by itself but what `script` says. */
import { once } from 'node:events';
import { createServer, type IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import { type WebSocket, WebSocketServer } from 'ws';
import { Journal } from '../../../src/agent-client/index.ts';
import { nativeCrypto } from '../../../src/agent-gateway/crypto/native.ts';
import type { SigningKey } from '../../../src/agent-gateway/crypto/suite.ts';
import { type ProvenAgent, V2Responder } from '../../../src/agent-gateway/crypto/v2-responder.ts';
import { keyFingerprint } from '../../../src/agent-gateway/crypto/v2-schedule.ts';
import { decodeBatch, encodeBatch, type V2Message } from '../../../src/agent-gateway/wire/v2-message.ts';
import { encodeSessionGrant, type SessionGrant } from '../../../src/agent-gateway/wire/v2-session-channel.ts';

export interface PeerScript {
  grant: Partial<SessionGrant>;
  /** Whether what needs it is acknowledged at once. */
  acknowledges: boolean;
  /** Refuses upgrades. */
  upgrade: { readonly status: number; readonly headers?: string } | null;
  /** Leaves upgrades without an answer. */
  holdsUpgrades: boolean;
  /** Ends handshakes with this code instead of granting a session. */
  refusesWith: number | null;
  /** Leaves M3 without an answer. */
  holdsGrants: boolean;
  /** What the upgrade is answered with; false for none. */
  subprotocol: string | false;
}

export interface SaidMessage {
  readonly id?: string;
  readonly type: V2Message['type'];
  readonly channel: string;
  readonly payload?: unknown;
  readonly headers?: Partial<V2Message['headers']>;
}

/** One message of an agent. */
export interface Heard {
  readonly link: PeerLink;
  readonly message: V2Message;
}

export class GatewayPeer {
  readonly script: PeerScript = {
    grant: {},
    acknowledges: true,
    upgrade: null,
    holdsUpgrades: false,
    refusesWith: null,
    holdsGrants: false,
    subprotocol: 'aegis.v2',
  };
  /** Every message, in order, heartbeats and acknowledgements among them. */
  readonly heard = new Journal<Heard>('message of an agent', 100_000);
  readonly opened = new Journal<PeerLink>('link', 10_000);
  readonly closed = new Journal<PeerLink>('end of a link', 10_000);
  readonly upgrades = new Journal<IncomingMessage>('upgrade', 10_000);
  key: SigningKey = nativeCrypto.signingKeyFromSeed(new Uint8Array(32).fill(7));
  nextKey: SigningKey | null = null;
  epoch = 1_000;
  /** Handshakes that came as far as M3. */
  proofs = 0;
  readonly #http = createServer();
  readonly #upgrading = new Set<Duplex>();
  readonly #sockets = new WebSocketServer({
    noServer: true,
    handleProtocols: () => this.script.subprotocol,
  });

  static async start(): Promise<GatewayPeer> {
    const peer = new GatewayPeer();
    peer.#http.on('upgrade', (request, socket, head) => {
      peer.upgrades.record(request);
      peer.#upgrading.add(socket);
      socket.on('close', () => peer.#upgrading.delete(socket));
      if (peer.script.holdsUpgrades) return;
      if (peer.script.upgrade) {
        const { status, headers = '' } = peer.script.upgrade;
        socket.end(`HTTP/1.1 ${status} No\r\nContent-Length: 0\r\nConnection: close\r\n${headers}\r\n`);
        return;
      }
      peer.#sockets.handleUpgrade(request, socket, head, (webSocket) => peer.#shakeHands(webSocket));
    });
    peer.#http.listen(0, '127.0.0.1');
    await once(peer.#http, 'listening');
    return peer;
  }

  get url(): string {
    const address = this.#http.address();
    if (typeof address !== 'object' || !address) throw new Error('the peer does not listen');
    return `ws://127.0.0.1:${address.port}/ws/agent`;
  }

  get fingerprint(): string {
    return keyFingerprint(nativeCrypto, this.key.publicKey);
  }

  /** The next message that matches and was not given before, of whichever link. */
  next(matches: (message: V2Message) => boolean): Promise<Heard> {
    return this.heard.next(({ message }) => matches(message));
  }

  /** The next event on this channel. */
  nextOn(channel: string): Promise<Heard> {
    return this.next((message) => message.channel === channel);
  }

  async stop(): Promise<void> {
    for (const socket of this.#sockets.clients) socket.terminate();
    for (const socket of this.#upgrading) socket.destroy();
    this.#http.closeAllConnections();
    this.#http.close();
    await once(this.#http, 'close');
  }

  #shakeHands(socket: WebSocket): void {
    const responder = new V2Responder({ suite: nativeCrypto, signingKey: this.key });
    const key = this.key;
    socket.once('message', (m1) => {
      const m2 = responder.takeM1(String(m1));
      if (!m2.ok) return socket.close(4001, 'the handshake failed');
      socket.send(m2.value);
      socket.once('message', (m3) => {
        const agent = responder.takeM3(String(m3));
        this.proofs++;
        if (!agent.ok || this.script.refusesWith) return socket.close(this.script.refusesWith ?? 4001, 'refused');
        if (this.script.holdsGrants) return;
        this.opened.record(new PeerLink(this, socket, agent.value, key));
      });
    });
    socket.on('error', () => undefined);
  }
}

export class PeerLink {
  readonly agent: ProvenAgent;
  readonly key: SigningKey;
  /** The messages of each record. */
  readonly records: (readonly V2Message[])[] = [];
  readonly pings: string[] = [];
  readonly grant: SessionGrant;
  /** 0 while it is open. */
  closeCode = 0;
  /** Of the last record that came. */
  generation = 0;
  readonly #socket: WebSocket;

  constructor(peer: GatewayPeer, socket: WebSocket, agent: ProvenAgent, key: SigningKey) {
    this.agent = agent;
    this.key = key;
    this.#socket = socket;
    socket.on('ping', (body) => this.pings.push(String(body)));
    socket.on('message', (frame) => {
      if (!(frame instanceof Buffer)) throw new Error('not a binary frame');
      this.generation = frame.readUInt32BE(1);
      const record = agent.session.opener.open(frame);
      if (!record.ok) throw new Error(record.cause);
      const batch = decodeBatch(record.json, this.grant.limits.maxBatchMessages);
      if (!batch.ok) throw new Error(batch.code);
      this.records.push(batch.value);
      for (const message of batch.value) peer.heard.record({ link: this, message });
      const ids = batch.value.filter(({ type }) => ['event', 'request', 'response'].includes(type)).map(({ id }) => id);
      if (peer.script.acknowledges && ids.length > 0) this.acknowledge(...ids);
    });
    socket.on('close', (code) => {
      this.closeCode = code;
      peer.closed.record(this);
    });
    this.grant = {
      ...{ agentUid: '0'.repeat(32), sessionToken: 'session', epoch: peer.epoch++, heartbeatMs: 30_000 },
      ...{ expiresAtMs: 1_000 + 3_600_000, serverTimeMs: 1_000, enrollment: 'trusted' as const },
      limits: { maxRecordBytes: 327_680, maxBatchMessages: 256, maxInFlightMessages: 1_024, ackTimeoutMs: 30_000 },
      keys: { current: key.publicKey, next: peer.nextKey?.publicKey ?? null },
      ...peer.script.grant,
    };
    this.say({ id: 'm4', type: 'response', channel: 'session', payload: encodeSessionGrant(this.grant) });
  }

  say(...messages: readonly SaidMessage[]): void {
    this.#socket.send(
      this.agent.session.sealer.seal(
        encodeBatch(
          messages.map(({ id = crypto.randomUUID(), type, channel, payload = {}, headers = {} }) => ({
            ...{ id, type, channel, headers, timestampMs: 1_000, payloadText: JSON.stringify(payload) },
          })),
        ),
      ),
    );
  }

  acknowledge(...ids: readonly string[]): void {
    this.say({ type: 'ack', channel: 'session', headers: { ackFor: ids } });
  }

  refuse(ids: readonly string[], notice: { code: string; retryable: boolean; retry_after?: number }): void {
    this.say({ type: 'error', channel: 'session', headers: { ackFor: ids }, payload: { message: 'no', ...notice } });
  }

  command(id: string, payload: unknown = {}, headers: Partial<V2Message['headers']> = {}): void {
    this.say({ id, type: 'request', channel: 'backend.policies', payload, headers });
  }

  /** Anything at all, as a frame. */
  sendRaw(frame: string | Uint8Array): void {
    this.#socket.send(frame);
  }

  /** A pong of the agent's own ping, or a ping: something is heard. */
  ping(): void {
    this.#socket.ping();
  }

  stopReading(): void {
    this.#socket.pause();
  }

  close(code: number, reason = ''): void {
    this.#socket.close(code, reason);
  }

  terminate(): void {
    this.#socket.terminate();
  }
}
