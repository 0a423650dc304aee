/** Composes an agent's messages and heartbeats: channel, nonce and signature as its dialect and habits have it. */
import type { SigningKey } from '../agent-gateway/crypto/suite.ts';
import { agentChannelName, type EventKind } from '../agent-gateway/wire/channels.ts';
import { type AgentIds, unixSeconds } from './agent-ids.ts';
import type { AgentClock } from './clock.ts';
import type { Dialect, Habits } from './habits.ts';
import type { AgentIdentity } from './identity.ts';
import {
  envelopedMessage,
  handoffMessage,
  type MessageBody,
  type MessageInput,
  type SecureMessage,
} from './v1-frames.ts';

export interface EventOptions {
  /** `msg_…`, never used before, where absent. */
  readonly id?: string;
  /** `event` where absent. */
  readonly type?: string;
  /** Unix seconds; the agent's clock where absent. */
  readonly timestamp?: number;
  readonly headers?: Readonly<Record<string, string>>;
  /** The agent's habit where absent. */
  readonly channelForm?: 'short' | 'long';
  /** A channel name to write as it is, instead of one of the agent's own. */
  readonly channel?: string;
  /** Changes the signed frame before it is written, to see what becomes of a frame that is not right. */
  readonly alter?: (message: SecureMessage) => SecureMessage;
}

export interface ComposerParts {
  readonly dialect: Dialect;
  readonly habits: Habits;
  readonly identity: AgentIdentity;
  readonly clock: AgentClock;
  readonly ids: AgentIds;
  readonly randomBytes: (length: number) => Uint8Array;
}

const handoffNonceBytes = 12;
const heartbeatNonce = Buffer.from('heartbeat_nonce', 'utf8');

export class MessageComposer {
  readonly #parts: ComposerParts;
  #composed = 0;
  readonly #frugalKey: SigningKey;

  constructor(parts: ComposerParts) {
    this.#parts = parts;
    this.#frugalKey = rememberLastSignature(parts.identity.key);
  }

  /** `sealingKey` is the handoff dialect's, and unused in the other. */
  event(kind: EventKind, body: MessageBody, options: EventOptions, sealingKey: Uint8Array): SecureMessage {
    const { clock, ids } = this.#parts;
    this.#composed += 1;
    const message = this.#message(sealingKey, {
      id: options.id ?? ids.message(),
      type: options.type ?? 'event',
      channel: options.channel ?? this.#channel(kind, options.channelForm),
      timestamp: options.timestamp ?? unixSeconds(clock),
      nonce: this.#messageNonce(),
      body,
      headers: options.headers ?? {},
    });
    return options.alter ? options.alter(message) : message;
  }

  /** Always on the long channel. */
  heartbeat(sealingKey: Uint8Array): SecureMessage {
    const { clock, dialect, ids, identity, randomBytes } = this.#parts;
    return this.#message(sealingKey, {
      id: ids.heartbeat(),
      type: 'heartbeat',
      channel: agentChannelName(identity.identifier, 'heartbeat'),
      timestamp: unixSeconds(clock),
      nonce: dialect === 'handoff' ? randomBytes(handoffNonceBytes) : heartbeatNonce,
      body: {},
    });
  }

  #message(sealingKey: Uint8Array, input: Omit<MessageInput, 'key'>): SecureMessage {
    const { dialect, identity } = this.#parts;
    const { suite, identifier, key } = identity;
    if (dialect === 'handoff') return handoffMessage({ ...input, key, suite, sealingKey });
    return envelopedMessage({ ...input, key: this.#frugalKey, identifier });
  }

  #channel(kind: EventKind, form: 'short' | 'long' | undefined): string {
    const { habits, identity } = this.#parts;
    const mixed = this.#composed % 2 === 0 ? 'long' : 'short';
    const written = form ?? (habits.channelForm === 'mixed' ? mixed : habits.channelForm);
    if (written === 'short') return `agent.${kind}`;
    return agentChannelName(habits.channelIdentity === 'name' ? identity.agentId : identity.identifier, kind);
  }

  #messageNonce(): Uint8Array {
    const { dialect, habits, randomBytes } = this.#parts;
    if (dialect === 'handoff' || habits.nonce === 'random') return randomBytes(handoffNonceBytes);
    return Buffer.from(habits.nonce, 'utf8');
  }
}

/** Enveloped messages of one second sign the same text: one signature serves them all, and load costs less to make. */
function rememberLastSignature(key: SigningKey): SigningKey {
  let last: { readonly message: Buffer; readonly signature: Uint8Array } | null = null;
  return {
    publicKey: key.publicKey,
    sign(message) {
      if (!last?.message.equals(message)) last = { message: Buffer.from(message), signature: key.sign(message) };
      return last.signature;
    },
  };
}
