/**
 * The remote peer of the recordings: a WebSocket server that answers agents exactly as the recording server did, and
 * keeps what it saw. Each answer can be replaced, to see what an agent makes of another one.
 */
import { once } from 'node:events';
import { createServer, type IncomingHttpHeaders, type IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import { type WebSocket, WebSocketServer } from 'ws';
import { z } from 'zod';
import { commandSealingKey, Journal } from '../../src/agent-client/index.ts';
import { nativeCrypto } from '../../src/agent-gateway/crypto/native.ts';

export type Seen =
  | { readonly ev: 'open'; readonly peer: number; readonly url: string; readonly headers: IncomingHttpHeaders }
  | { readonly ev: 'frame'; readonly peer: number; readonly text: string; readonly channel: string }
  | { readonly ev: 'binary'; readonly peer: number; readonly bytes: Buffer }
  | { readonly ev: 'ping'; readonly peer: number; readonly body: string }
  | { readonly ev: 'pong'; readonly peer: number; readonly body: string }
  | { readonly ev: 'close'; readonly peer: number; readonly code: number };
type SeenOf<Ev extends Seen['ev']> = Extract<Seen, { readonly ev: Ev }>;

/** What the server says instead of its usual answer; null is silence. */
export interface Script {
  handoffGrant?: Record<string, unknown> | null;
  grant?: Record<string, unknown> | null;
  challenge?: Record<string, unknown> | null;
  registered?: Record<string, unknown> | null;
  /** Frames sent before the answer to the authentication's successor, `agent.registration`. */
  beforeChallenge?: string;
  /** Refuses upgrades with this status. */
  upgradeStatus?: number;
  /** Leaves upgrades without an answer. */
  holdsUpgrades?: boolean;
}

const anyFrame = z.object({ channel: z.string().default(''), agent_id: z.string().optional() });
export const recordedToken = 'tok_xPoQoT+M3IIlEZ8A0pgMPL4BBvGnTWi3';

export class RecorderServer {
  readonly script: Script = {};
  readonly seen = new Journal<Seen>('sight of the recorder', 100_000);
  readonly backendKey = nativeCrypto.signingKeyFromSeed(new Uint8Array(32).fill(7));
  readonly #peers = new Map<number, WebSocket>();
  readonly #http = createServer();
  readonly #upgrading = new Set<Duplex>();
  readonly #sockets = new WebSocketServer({ noServer: true });
  #peerCount = 0;
  #uidCount = 0;

  static async start(): Promise<RecorderServer> {
    const server = new RecorderServer();
    server.#http.on('upgrade', (request, socket, head) => {
      server.#upgrading.add(socket);
      socket.on('close', () => server.#upgrading.delete(socket));
      if (server.script.holdsUpgrades) return;
      if (server.script.upgradeStatus) {
        socket.end(`HTTP/1.1 ${server.script.upgradeStatus} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n`);
        return;
      }
      server.#sockets.handleUpgrade(request, socket, head, (peer) => server.#admit(peer, request));
    });
    server.#http.listen(0, '127.0.0.1');
    await once(server.#http, 'listening');
    return server;
  }

  get url(): string {
    const address = this.#http.address();
    if (address === null || typeof address === 'string') throw new Error('the server is not listening');
    return `ws://127.0.0.1:${address.port}/ws/agent`;
  }

  /** Connections still open, by number, oldest first. */
  get openPeers(): number[] {
    return [...this.#peers.keys()];
  }

  next<Ev extends Seen['ev']>(ev: Ev, matches: (seen: SeenOf<Ev>) => boolean = () => true): Promise<SeenOf<Ev>> {
    return this.seen.next((seen): seen is SeenOf<Ev> => isOf(seen, ev) && matches(seen));
  }

  framesOf(peer: number): string[] {
    return this.seen.entries.flatMap((seen) => (seen.ev === 'frame' && seen.peer === peer ? [seen.text] : []));
  }

  send(peer: number, text: string): void {
    this.#peer(peer).send(text);
  }

  ping(peer: number, body: string): void {
    this.#peer(peer).ping(body);
  }

  pong(peer: number, body: string): void {
    this.#peer(peer).pong(body);
  }

  close(peer: number, code: number): void {
    this.#peer(peer).close(code);
  }

  /** A command frame as a backend seals it for an enveloped agent. */
  commandFrame(agentPublicKey: Uint8Array, channel: string, body: unknown, id = 'cmd1'): string {
    const nonce = nativeCrypto.randomBytes(12);
    const key = commandSealingKey(nativeCrypto, agentPublicKey, this.backendKey.publicKey);
    const plaintext = Buffer.from(Buffer.from(JSON.stringify(body)).toString('base64'));
    return JSON.stringify({
      id,
      type: 'request',
      channel,
      payload: Buffer.from(nativeCrypto.seal(key, nonce, plaintext)).toString('base64'),
      timestamp: 1795436172,
      nonce: Buffer.from(nonce).toString('base64'),
      signature: '',
      headers: {},
    });
  }

  async stop(): Promise<void> {
    if (!this.#http.listening) return;
    for (const peer of this.#peers.values()) peer.terminate();
    for (const socket of this.#upgrading) socket.destroy();
    this.#http.close();
    await once(this.#http, 'close');
  }

  #admit(socket: WebSocket, request: IncomingMessage): void {
    const peer = ++this.#peerCount;
    this.#peers.set(peer, socket);
    this.seen.record({ ev: 'open', peer, url: request.url ?? '', headers: request.headers });
    socket.on('ping', (body) => this.seen.record({ ev: 'ping', peer, body: body.toString() }));
    socket.on('pong', (body) => this.seen.record({ ev: 'pong', peer, body: body.toString() }));
    socket.on('error', () => socket.terminate());
    socket.on('close', (code) => {
      this.#peers.delete(peer);
      this.seen.record({ ev: 'close', peer, code });
    });
    socket.on('message', (content, isBinary) => {
      const bytes = Buffer.isBuffer(content) ? content : Buffer.alloc(0);
      if (isBinary) this.seen.record({ ev: 'binary', peer, bytes });
      else this.#received(peer, socket, bytes.toString('utf8'));
    });
  }

  #received(peer: number, socket: WebSocket, text: string): void {
    const frame = anyFrame.catch({ channel: 'unreadable', agent_id: undefined }).parse(parse(text));
    this.seen.record({ ev: 'frame', peer, text, channel: frame.channel });
    if (frame.channel === '' && frame.agent_id)
      this.#answer(socket, this.script.handoffGrant, this.#grant(), (body) => body);
    else if (frame.channel === 'auth') {
      this.#answer(socket, this.script.grant, this.#grant(), (body) => envelope('auth_resp_1', 'auth', toBase64(body)));
    } else if (frame.channel === 'agent.registration') {
      if (this.script.beforeChallenge) socket.send(this.script.beforeChallenge);
      this.#answer(socket, this.script.challenge, challenge, (body) => envelope('r1', frame.channel, body));
    } else if (frame.channel === 'agent.registration.complete') {
      const uid = `8ff16dc9-6091-4bac-9d2a-${String(++this.#uidCount).padStart(12, '0')}`;
      const granted = { agent_uid: uid, bootstrap_token: `boot-${uid}` };
      this.#answer(socket, this.script.registered, granted, (body) => envelope('r2', frame.channel, body));
    }
  }

  #answer(
    socket: WebSocket,
    scripted: Record<string, unknown> | null | undefined,
    usual: Record<string, unknown>,
    wrap: (body: string) => string,
  ): void {
    if (scripted === null) return;
    socket.send(wrap(JSON.stringify({ ...usual, ...scripted })));
  }

  #grant(): Record<string, unknown> {
    return {
      success: true,
      backend_key: Buffer.from(this.backendKey.publicKey).toString('base64'),
      session_token: recordedToken,
      expires_at: 1795522572,
      message: 'ok',
    };
  }

  #peer(number: number): WebSocket {
    const socket = this.#peers.get(number);
    if (!socket) throw new Error(`connection ${number} is not open`);
    return socket;
  }
}

const challenge = {
  registration_id: '1b04f472-4f95-4d6c-b074-38d93dfa619f',
  nonce: 'fdPj4slCS+/BndiA2VzN0sno76Bl9VrlYQJp8+LEfQA=',
  server_time: '2026-11-23T12:16:12Z',
};

function envelope(id: string, channel: string, payload: string): string {
  return JSON.stringify({
    id,
    type: 'response',
    channel,
    payload,
    timestamp: 1795436172,
    nonce: '',
    signature: '',
    headers: {},
  });
}

function isOf<Ev extends Seen['ev']>(seen: Seen, ev: Ev): seen is SeenOf<Ev> {
  return seen.ev === ev;
}

function toBase64(text: string): string {
  return Buffer.from(text).toString('base64');
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
