import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { type RawData, WebSocket } from 'ws';
import { z } from 'zod';
import { encodeBase64 } from '../../src/agent-client/base64.ts';
import { readEnvelopedGrant } from '../../src/agent-client/v1-answers.ts';
import { commandSealingKey, readCommand } from '../../src/agent-client/v1-commands.ts';
import {
  authenticationRequest,
  encodeEnvelopedAuthentication,
  encodeSecureMessage,
  envelopedMessage,
} from '../../src/agent-client/v1-frames.ts';
import { nativeCrypto } from '../../src/agent-gateway/crypto/native.ts';
import type { SigningKey } from '../../src/agent-gateway/crypto/suite.ts';

/** How long an agent waits for its 101, and after it for its answer. */
export interface AgentPatience {
  readonly dialMs: number;
  readonly answerMs: number;
}

const patient: AgentPatience = { dialMs: 30_000, answerMs: 30_000 };
/** What a deployed agent has (agent-wire, "strands it for good", "Each wait times out after 10 s"). */
export const deployedPatience: AgentPatience = { dialMs: 10_000, answerMs: 10_000 };
/** The nonce that deployed agents put into every message (agent-wire, "enveloped"). */
const messageNonce = Buffer.from('message_nonc');
/** As much as a deployed agent's anomaly has. */
const padding = 'x'.repeat(300);
const numbered = z.object({ seq: z.int() });

/** An enveloped v1 agent that never registers: as little of an agent as makes the server work. */
export class LoadAgent {
  readonly name: string;
  readonly #key: SigningKey = nativeCrypto.generateSigningKey();
  readonly #onLost: (reason: string) => void;
  /** How often it has read each command, by message id. */
  readonly journal = new Map<string, number>();
  /** Told of each command as it is read, and when. */
  onCommand: (sequence: number, atMs: number) => void = () => {};
  #authentication = '';
  #socket: WebSocket | null = null;
  #isLeaving = false;

  /** `onLost` is told when the server ends the connection. */
  constructor(name: string, onLost: (reason: string) => void) {
    this.name = name;
    this.#onLost = onLost;
  }

  /** Signs the next authentication ahead of time; it is good for one `connect`. */
  prepare(): void {
    const request = authenticationRequest({
      key: this.#key,
      agentId: this.name,
      timestamp: unixSeconds(),
      nonce: randomBytes(16),
    });
    this.#authentication = encodeEnvelopedAuthentication(`auth_${this.name}_${Date.now()}`, request);
  }

  /** Dials and authenticates; resolves with the milliseconds that it took. Rejects where the server refuses. */
  async connect(url: string, { dialMs, answerMs }: AgentPatience = patient): Promise<number> {
    const startedMs = performance.now();
    const socket = new WebSocket(url, {
      perMessageDeflate: false,
      headers: {
        'User-Agent': 'Aegis-Agent/1.0',
        'X-Agent-ID': this.name,
        'X-Agent-Public-Key': encodeBase64(this.#key.publicKey),
      },
    });
    const authentication = this.#authentication;
    const giveUp = (why: string) => () => socket.emit('error', new Error(`${this.name} gave up: ${why}`));
    socket.once('unexpected-response', (_request, { statusCode, headers }) => {
      const who = headers['x-request-id'] === undefined ? 'somebody on the way' : 'the gateway';
      socket.emit('error', new Error(`${this.name} was answered ${statusCode} by ${who}`));
    });
    let isInTime = unlessInTime(dialMs, giveUp(`no 101 within ${dialMs} ms`));
    socket.once('open', () => {
      isInTime();
      isInTime = unlessInTime(answerMs, giveUp(`no answer within ${answerMs} ms of the 101`));
      socket.send(authentication);
    });
    const answer = await firstMessage(socket).finally(() => isInTime());
    const tookMs = performance.now() - startedMs;
    const grant = readEnvelopedGrant(answer);
    if (!grant.ok) throw new Error(`the authentication of ${this.name} was answered with: ${grant.reason}`);
    socket.on('error', (error) => this.#onLost(`${this.name}: ${error.message}`));
    socket.once('close', (code) => {
      if (!this.#isLeaving) this.#onLost(`${this.name}: the server closed with ${code}`);
    });
    const sealingKey = commandSealingKey(nativeCrypto, this.#key.publicKey, grant.value.backendKey);
    socket.on('message', (data) => this.#read(sealingKey, data.toString()));
    this.#isLeaving = false;
    this.#socket = socket;
    return tookMs;
  }

  /** The frame of an event, whose payload holds `@sequence@`. */
  eventFrame(sequence: number, timestamp: number): string {
    return encodeSecureMessage(
      envelopedMessage({
        key: this.#key,
        identifier: this.name,
        id: `msg_${this.name}_${sequence}`,
        type: 'event',
        channel: `agent.${this.name}.anomalies`,
        timestamp,
        nonce: messageNonce,
        body: {
          id: `an-${sequence}`,
          type: 'beaconing',
          severity: 'high',
          message: padding,
          metadata: { seq: `@${sequence}@` },
        },
      }),
    );
  }

  /** Resolves when the frame has been handed to the kernel. */
  send(frame: string): Promise<void> {
    const socket = this.#socket;
    return new Promise((resolve, reject) => {
      if (!socket) return reject(new Error(`${this.name} is not connected`));
      socket.send(frame, (error) => (error ? reject(error) : resolve()));
    });
  }

  /** What has been sent and waits for the kernel to take it. */
  get bufferedBytes(): number {
    return this.#socket?.bufferedAmount ?? 0;
  }

  #read(sealingKey: Uint8Array, text: string): void {
    const atMs = performance.now();
    const reading = readCommand(nativeCrypto, sealingKey, text);
    // What keeps the link alive is on a channel that nobody hears.
    if (!reading.ok && reading.reason === 'unheard') return;
    const body = reading.ok ? numbered.safeParse(reading.command.body) : null;
    if (!reading.ok || !body?.success) {
      this.#onLost(`${this.name} cannot read what it was sent`);
      return;
    }
    const { id } = reading.command.frame;
    this.journal.set(id, (this.journal.get(id) ?? 0) + 1);
    this.onCommand(body.data.seq, atMs);
  }

  /** Closes the connection and waits for its end. */
  async leave(): Promise<void> {
    const socket = this.#socket;
    this.#socket = null;
    this.#isLeaving = true;
    if (!socket || socket.readyState === socket.CLOSED) return;
    socket.close(1000);
    await once(socket, 'close');
  }
}

export function unixSeconds(): number {
  return Math.floor(Date.now() / 1_000);
}

/**
 * Calls `then` after so long, unless the returned function is called before. What has arrived by then is read first: thousands of
 * agents share this process, and are late for each other's sake where one alone would not be.
 */
function unlessInTime(afterMs: number, then: () => void): () => void {
  let isOver = false;
  const timer = setTimeout(() => {
    setImmediate(() =>
      setImmediate(() => {
        if (!isOver) then();
      }),
    );
  }, afterMs);
  return () => {
    isOver = true;
    clearTimeout(timer);
  };
}

async function firstMessage(socket: WebSocket): Promise<string> {
  return new Promise((resolve, reject) => {
    const settle = (finish: () => void) => {
      socket.off('message', onMessage);
      socket.off('close', onClose);
      finish();
    };
    const onMessage = (data: RawData) => settle(() => resolve(data.toString()));
    const onClose = (code: number) => settle(() => reject(new Error(`the server closed with ${code}`)));
    const onError = (error: Error) =>
      settle(() => {
        // Ending it before it is open is an error of its own.
        socket.on('error', () => {});
        socket.terminate();
        reject(error);
      });
    socket.on('message', onMessage);
    socket.on('close', onClose);
    socket.once('error', onError);
  });
}
