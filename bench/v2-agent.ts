import { once } from 'node:events';
import { WebSocket } from 'ws';
import { z } from 'zod';
import { nativeCrypto } from '../src/agent-gateway/crypto/native.ts';
import type { CryptoSuite, SigningKey } from '../src/agent-gateway/crypto/suite.ts';
import { V2Initiator } from '../src/agent-gateway/crypto/v2-initiator.ts';
import type { V2Session } from '../src/agent-gateway/crypto/v2-session.ts';
import { v2Subprotocol } from '../src/agent-gateway/wire/v2-limits.ts';
import { decodeBatch, encodeBatch } from '../src/agent-gateway/wire/v2-message.ts';
import type { Target } from './load/protocol.ts';

/** A v2 agent that costs its process little: it does not verify the gateway's records, only its handshake. */
export interface BenchV2Agent {
  readonly socket: WebSocket;
  /** Records of `batch` events each, signed and sealed ahead: one event for each text. */
  seal(texts: readonly string[], batch: number): readonly Uint8Array[];
  /** How many events have been acknowledged so far. */
  readonly acknowledged: number;
}

let nextId = 0;

/** Resolves when M4 has come. */
export async function connectV2(options: {
  readonly url: string;
  readonly pin: string;
  readonly name: string;
  readonly key: SigningKey;
}): Promise<BenchV2Agent> {
  const { url, pin, name, key } = options;
  const socket = new WebSocket(url, v2Subprotocol, { perMessageDeflate: false });
  await once(socket, 'open');
  const { suite, trust } = trustingSuite();
  const identity = { agentId: name, orgId: null, enroll: null };
  const initiator = new V2Initiator({ suite, signingKey: key, identity, pins: [pin] });
  let session: V2Session | null = null;
  let acknowledged = 0;
  let onGranted = () => {};

  socket.on('message', (data) => {
    if (!(data instanceof Buffer)) return;
    if (!session) {
      const step = initiator.takeM2(data.toString());
      if (!step.ok) throw new Error(`M2 is refused: ${step.cause}`);
      session = step.value.session;
      trust();
      socket.send(step.value.m3);
      return;
    }
    const record = session.opener.open(data);
    const batch = record.ok ? decodeBatch(record.json, 1_000) : record;
    if (!batch.ok) throw new Error('a record cannot be read');
    onGranted();
    for (const { headers } of batch.value) acknowledged += headers.ackFor.length;
  });
  const granted = new Promise<void>((resolve) => {
    onGranted = resolve;
  });
  const closed = once(socket, 'close').then(() => {
    throw new Error(`${name} was not let in`);
  });
  socket.send(initiator.m1);
  await Promise.race([granted, closed]);
  closed.catch(() => {});

  return {
    socket,
    seal(texts, batch) {
      const sealer = session?.sealer;
      if (!sealer) throw new Error('no session');
      const messages = texts.map((text) => ({
        ...({ id: `bench-${++nextId}`, type: 'event', channel: 'agent.anomalies' } as const),
        ...{ payloadText: JSON.stringify({ severity: 'low', text }), timestampMs: Date.now() },
      }));
      const records = Math.ceil(messages.length / batch);
      return Array.from({ length: records }, (_, index) =>
        sealer.seal(encodeBatch(messages.slice(index * batch, (index + 1) * batch))),
      );
    },
    get acknowledged() {
      return acknowledged;
    },
  };
}

/** The native suite, which believes every signature once it is told to trust. */
function trustingSuite(): { readonly suite: CryptoSuite; readonly trust: () => void } {
  let isTrusting = false;
  const suite: CryptoSuite = {
    ...nativeCrypto,
    verifier(publicKey) {
      const verify = nativeCrypto.verifier(publicKey);
      return (message, signature) => isTrusting || verify(message, signature);
    },
  };
  return {
    suite,
    trust: () => {
      isTrusting = true;
    },
  };
}

/** The fingerprint of the gateway's key. */
export async function pinOf(target: Target): Promise<string> {
  const response = await fetch(target.commandUrl ?? '', {
    method: 'POST',
    headers: { 'content-type': 'application/json', authorization: `Bearer ${target.graphqlToken}` },
    body: JSON.stringify({ query: '{ gateway { keys { current } } }' }),
  });
  const answer = z.object({ data: z.object({ gateway: z.object({ keys: z.object({ current: z.string() }) }) }) });
  return answer.parse(await response.json()).data.gateway.keys.current;
}

export const newV2Key = (): SigningKey => nativeCrypto.generateSigningKey();
