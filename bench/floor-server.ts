import {
  createCipheriv,
  createHash,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  randomBytes,
  randomUUID,
  sign,
  verify,
} from 'node:crypto';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { type WebSocket, WebSocketServer } from 'ws';

/**
 * The floor: the least that a server on Node and `ws` can do for these agents. It authenticates an enveloped v1 agent, verifies
 * the signature of every message with node:crypto, decodes the payload and fans it out as JSON to bare WebSockets. What is
 * posted to it, it seals and signs for one agent or for all, and a ping behind each command asks whether it was read. No
 * database, no GraphQL, no permissions, no limits, no replay protection; whatever is wrong is dropped. What it takes more or
 * less of than the gateway is the price of what the gateway does.
 */

interface Frame {
  readonly id: string;
  readonly channel: string;
  readonly payload: string;
  readonly timestamp: number;
  readonly nonce: string;
  readonly signature: string;
}

interface Authentication {
  readonly agent_id: string;
  readonly public_key: string;
  readonly timestamp: number;
  readonly nonce: string;
  readonly signature: string;
}

/** DER header of an Ed25519 public key (RFC 8410): what precedes the 32 raw bytes. */
const spkiHeader = Buffer.from('302a300506032b6570032100', 'hex');
const sessionMs = 24 * 3_600_000;

const agents = new WebSocketServer({ noServer: true, clientTracking: false, perMessageDeflate: false });
const subscribers = new WebSocketServer({ noServer: true, clientTracking: false, perMessageDeflate: false });
const listening = new Set<WebSocket>();
/** The agents that have authenticated, by name. */
const commanded = new Map<string, { readonly socket: WebSocket; readonly sealingKey: Buffer }>();
const { privateKey, publicKey: backendPublicKey } = generateKeyPairSync('ed25519');
const backendKey = backendPublicKey.export({ format: 'der', type: 'spki' }).subarray(spkiHeader.length);
let confirmed = 0;

function serveAgent(socket: WebSocket): void {
  let identity: Authentication | null = null;
  let key: KeyObject | null = null;

  const isSigned = (agent: Authentication, publicKey: KeyObject, claim: Authentication | Frame) =>
    verify(
      null,
      Buffer.from(`${agent.agent_id}:${agent.public_key}:${claim.timestamp}:${claim.nonce}`),
      publicKey,
      Buffer.from(claim.signature, 'base64'),
    );

  socket.on('error', () => socket.terminate());
  socket.on('message', (data) => {
    // Nobody but the load generator speaks to this: the shape is trusted, as it would be in a sketch.
    const frame: Frame = JSON.parse(data.toString());
    const body = JSON.parse(Buffer.from(frame.payload, 'base64').toString());
    if (identity && key) {
      if (isSigned(identity, key, frame)) publish(frame, body);
      return;
    }
    const claim: Authentication = body;
    const publicKey = createPublicKey({
      key: Buffer.concat([spkiHeader, Buffer.from(claim.public_key, 'base64')]),
      format: 'der',
      type: 'spki',
    });
    if (!isSigned(claim, publicKey, claim)) return socket.close();
    identity = claim;
    key = publicKey;
    const sealingKey = createHash('sha256').update(Buffer.from(claim.public_key, 'base64')).update(backendKey).digest();
    commanded.set(claim.agent_id, { socket, sealingKey });
    socket.on('pong', () => confirmed++);
    socket.once('close', () => commanded.delete(claim.agent_id));
    socket.send(authenticationAnswer());
  });
}

function authenticationAnswer(): string {
  const grant = {
    success: true,
    backend_key: backendKey.toString('base64'),
    session_token: randomBytes(32).toString('base64url'),
    expires_at: Math.floor((Date.now() + sessionMs) / 1_000),
  };
  return JSON.stringify({
    id: 'auth_response',
    type: 'response',
    channel: 'auth',
    payload: Buffer.from(JSON.stringify(grant)).toString('base64'),
    timestamp: Math.floor(Date.now() / 1_000),
    nonce: '',
    signature: '',
    headers: {},
  });
}

function publish(frame: Frame, payload: unknown): void {
  const event = { messageId: frame.id, channel: frame.channel, payload };
  const text = JSON.stringify({ type: 'next', payload: { data: { event } } });
  for (const subscriber of listening) subscriber.send(text);
}

function serveSubscriber(socket: WebSocket): void {
  listening.add(socket);
  socket.on('error', () => socket.terminate());
  socket.on('close', () => listening.delete(socket));
}

/** Sends `payload` to `agent`, to all where it is null, and tells how many commands were confirmed before. */
async function serveCommand(request: IncomingMessage, response: ServerResponse): Promise<void> {
  let text = '';
  for await (const chunk of request.setEncoding('utf8')) text += chunk;
  const { agent, payload }: { agent?: string | null; payload?: unknown } = JSON.parse(text);
  const id = randomUUID();
  const answer = JSON.stringify({ id, confirmed });
  if (payload !== undefined)
    for (const name of agent ? [agent] : commanded.keys()) sendCommand(name, agent ? id : randomUUID(), payload);
  response.writeHead(200, { 'content-type': 'application/json' }).end(answer);
}

function sendCommand(name: string, id: string, body: unknown): void {
  const agent = commanded.get(name);
  if (!agent) return;
  const nonce = randomBytes(12);
  const cipher = createCipheriv('chacha20-poly1305', agent.sealingKey, nonce, { authTagLength: 16 });
  const sealed = cipher.update(Buffer.from(JSON.stringify(body)).toString('base64'));
  cipher.final();
  const payload = Buffer.concat([sealed, cipher.getAuthTag()]).toString('base64');
  const [type, channel, timestamp] = ['request', 'backend.policies', Math.floor(Date.now() / 1_000)];
  const signature = sign(null, Buffer.from(`${id}:${type}:${channel}:${timestamp}:${payload}`), privateKey);
  agent.socket.send(
    JSON.stringify({
      ...{ id, type, channel, payload, timestamp, nonce: nonce.toString('base64') },
      ...{ signature: signature.toString('base64'), headers: {} },
    }),
  );
  agent.socket.ping();
}

const server = createServer((request, response) => void serveCommand(request, response));
server.on('upgrade', (request, socket, head) => {
  if (request.url === '/ws/agent') agents.handleUpgrade(request, socket, head, serveAgent);
  else if (request.url === '/ws/sub') subscribers.handleUpgrade(request, socket, head, serveSubscriber);
  else socket.destroy();
});
server.listen({ host: '127.0.0.1', port: 0, backlog: 4_096 }, () => {
  const address = server.address();
  if (typeof address === 'object' && address) console.log(`The floor listens on port ${address.port}`);
});
