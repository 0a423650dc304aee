import { type EventKind, eventKinds } from '../../agent-gateway/wire/channels.ts';
import { isIdentifier, isTooDeep } from '../../agent-gateway/wire/text.ts';
import { isTimestamp, isTraceparent, type V2Message } from '../../agent-gateway/wire/v2-message.ts';
import {
  decodeEnrollmentNotice,
  decodeErrorNotice,
  decodeKeysNotice,
  encodeErrorNotice,
  isRotated,
  sessionChannel,
} from '../../agent-gateway/wire/v2-session-channel.ts';
import { AgentError } from './agent-error.ts';
import { type CommandHandler, CommandInbox } from './command-inbox.ts';
import { IdentityKeeper } from './identity-keeper.ts';
import { KeyRotation } from './key-rotation.ts';
import type { V2Link } from './link.ts';
import { LinkKeeper } from './link-keeper.ts';
import { type AgentOptions, type AgentSettings, settleOptions } from './options.ts';
import { Outbox } from './outbox.ts';
import type { AgentState, AgentStatistics, AgentStatus } from './status.ts';
import type { OutboxItem, Priority, StoredAgent } from './store.ts';

export interface ReportOptions {
  /** Unique among what this agent ever sends; the same report sent again with the same id is stored once. Random where absent. */
  readonly id?: string;
  /** When it happened, in milliseconds since 1970; now where absent. */
  readonly timestampMs?: number;
  /** `high` goes ahead of what waits, and has the last tenth of the outbox to itself. */
  readonly priority?: Priority;
  /** W3C Trace Context. */
  readonly traceparent?: string;
}

/** Largest payload that gateways take, in bytes of JSON. */
export const maxPayloadBytes = 256 * 1024;
const maxCommands = 256;

/**
 * Starts an agent of protocol v2: reads its store and dials. Rejects with an AgentError for what is wrong with options or store,
 * never for what the network does.
 */
export async function connectAgent(options: AgentOptions): Promise<V2Agent> {
  const settings = settleOptions(options);
  const stored = await settings.store.open();
  try {
    const { agentId, orgId, pins, store, suite } = settings;
    const configured = { agentId, orgId, pins: pins ?? [] };
    const identity = await IdentityKeeper.open(suite, store, stored.identity, configured);
    return new V2Agent(settings, stored, identity);
  } catch (error) {
    await settings.store.close();
    throw error;
  }
}

/** A live agent. It leads its own life: handshakes, heartbeats, new keys, the way back after every loss. */
export class V2Agent {
  readonly #settings: AgentSettings;
  readonly #identity: IdentityKeeper;
  readonly #outbox: Outbox;
  readonly #inbox: CommandInbox;
  readonly #rotation: KeyRotation;
  readonly #links: LinkKeeper;
  readonly #listeners = new Set<(status: AgentStatus) => void>();
  #reported = 0;
  #acknowledged = 0;
  #refused = 0;

  /** For `connectAgent`. */
  constructor(settings: AgentSettings, stored: StoredAgent, identity: IdentityKeeper) {
    const { clock, store, suite } = settings;
    const newId = (): string => hex(suite.randomBytes(16));
    const onStoreFailure = (error: unknown): void => this.#tell({ type: 'store-failed', error });
    this.#settings = settings;
    this.#identity = identity;
    this.#outbox = new Outbox(store, settings.outbox, {
      onQueued: () => this.#links.current?.pump(),
      onRefused: (id, { code }) => this.#tell({ type: 'refused', id, code }),
      onStoreFailure,
    });
    this.#inbox = new CommandInbox({
      ...{ store, outbox: this.#outbox, clock, newId, maxCommands, maxReplyBytes: maxPayloadBytes, onStoreFailure },
    });
    this.#rotation = new KeyRotation(identity, () => suite.randomBytes(32));
    this.#links = new LinkKeeper({
      ...{ settings, identity, outbox: this.#outbox, rotation: this.#rotation, newId },
      tell: (status) => this.#tell(status),
      onMessage: (link, message) => this.#take(link, message),
    });
    this.#outbox.load(stored.outbox);
    this.#inbox.load(stored.commands, stored.seenIds);
    this.#links.connect();
  }

  get agentId(): string {
    return this.#settings.agentId;
  }

  /** Its id at the gateway; null before the first session ever. */
  get uid(): string | null {
    return this.#identity.current.uid;
  }

  /** Its Ed25519 public key, 32 bytes. */
  get publicKey(): Uint8Array {
    return this.#identity.key().publicKey;
  }

  get state(): AgentState {
    return this.#links.state;
  }

  get statistics(): AgentStatistics {
    const { items: outboxItems, bytes: outboxBytes } = this.#outbox;
    const { taken, repeated, expired, failed } = this.#inbox.counts;
    return {
      ...this.#links.counts,
      ...{ outboxItems, outboxBytes, reported: this.#reported },
      ...{ acknowledged: this.#acknowledged, refused: this.#refused },
      ...{ commandsTaken: taken, commandsRepeated: repeated, commandsExpired: expired, commandsFailed: failed },
    };
  }

  /**
   * Reports an event. Resolves when the gateway has it for good, however many links that takes; until then it is in the outbox,
   * and in the store. Rejects with an AgentError: `OUTBOX_FULL`, `REPORT_INVALID`, `STORE_FAILED` or `AGENT_CLOSED`, or with the
   * gateway's code where it refuses it.
   */
  async report(kind: EventKind, payload: unknown, options: ReportOptions = {}): Promise<void> {
    this.#reported++;
    try {
      await this.#outbox.report(this.#eventOf(kind, payload, options));
      this.#acknowledged++;
    } catch (error) {
      this.#refused++;
      throw error;
    }
  }

  /** Has commands carried out, one after the other. They wait until this was called; calling it again replaces the handler. */
  onCommand(handler: CommandHandler): void {
    this.#inbox.setHandler(handler);
  }

  /** Tells what becomes of the agent; what is given ends that. */
  onStatus(listener: (status: AgentStatus) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Resolves when a link is open, at once if one is. Rejects with `AGENT_CLOSED`. */
  ready(): Promise<void> {
    if (this.state === 'open') return Promise.resolve();
    return new Promise((resolve, reject) => {
      const stop = this.onStatus((status) => {
        if (status.type === 'open') resolve();
        else if (this.state === 'closed') reject(new AgentError('AGENT_CLOSED', 'closed before a link was open'));
        else return;
        stop();
      });
      if (this.state === 'closed') {
        stop();
        reject(new AgentError('AGENT_CLOSED', 'the agent is closed'));
      }
    });
  }

  /**
   * Changes the agent's key, and resolves when the gateway has agreed and the new key is stored; however many links, and with a
   * store that lasts however many processes, that takes. Rejects with the gateway's code, `STORE_FAILED` or `AGENT_CLOSED`.
   */
  async rotateKey(): Promise<void> {
    if (this.state === 'closed') throw new AgentError('AGENT_CLOSED', 'the agent is closed');
    await this.#rotation.rotate(this.#links.current);
  }

  /** Ends it. What is not acknowledged stays in the store, and is sent by the next agent that is connected with it. */
  async close(): Promise<void> {
    if (this.state === 'closed') return;
    this.#links.close();
    this.#inbox.close();
    this.#rotation.close();
    this.#outbox.close();
    this.#tell({ type: 'closed', code: 1000, reason: 'the agent stops', httpStatus: null, returnsInMs: null });
    await this.#settings.store.close();
  }

  #eventOf(kind: EventKind, payload: unknown, options: ReportOptions): OutboxItem {
    const { id = hex(this.#settings.suite.randomBytes(16)), priority = 'normal', traceparent = null } = options;
    const timestampMs = Math.floor(options.timestampMs ?? this.#settings.clock.nowMs());
    const payloadText = jsonText(payload);
    const isSound =
      eventKinds.includes(kind) &&
      isIdentifier(id) &&
      isTimestamp(timestampMs) &&
      (traceparent === null || isTraceparent(traceparent));
    if (!isSound) throw new AgentError('REPORT_INVALID', 'kind, id, timestamp or traceparent');
    if (payloadText === null) throw new AgentError('REPORT_INVALID', 'the payload is no JSON, or nests too deeply');
    if (payloadText.length > maxPayloadBytes || new TextEncoder().encode(payloadText).length > maxPayloadBytes)
      throw new AgentError('REPORT_INVALID', `the payload has more than ${maxPayloadBytes} bytes`);
    const channel = `agent.${kind}`;
    return { id, type: 'event', channel, payloadText, timestampMs, priority, replyTo: null, traceparent };
  }

  #take(link: V2Link, message: V2Message): void {
    const { type, channel, id } = message;
    if (type === 'error') this.#takeError(link, message);
    else if (type === 'heartbeat') return;
    else if (channel === sessionChannel) void this.#takeSession(link, message);
    else if (type === 'request' || type === 'event') this.#inbox.take(link, message);
    else {
      const notice = {
        code: 'CHANNEL_UNKNOWN',
        message: 'this agent asked nothing',
        retryable: false,
        retryAfterMs: null,
      };
      link.say({
        type: 'error',
        channel: sessionChannel,
        headers: { ackFor: [id] },
        payload: encodeErrorNotice(notice),
      });
    }
  }

  /** Acknowledged once what it says holds; what this version does not know, at once. */
  async #takeSession(link: V2Link, message: V2Message): Promise<void> {
    const { id, payload, headers } = message;
    const keys = decodeKeysNotice(payload);
    const enrollment = decodeEnrollmentNotice(payload);
    try {
      if (keys.ok) {
        const pins = this.#identity.pinsFor(keys.value, link.session.peerFingerprint);
        await this.#identity.update({ pins });
        this.#tell({ type: 'pinned', pins });
      } else if (isRotated(payload) && (await this.#rotation.agreed(link, headers.replyTo))) {
        // The first handshake with the new key is what puts it on record.
        this.#links.connect();
      } else if (enrollment.ok) {
        this.#tell({ type: 'enrollment', enrollment: enrollment.value });
      }
      link.acknowledge(id);
    } catch (error) {
      this.#tell({ type: 'store-failed', error });
    }
  }

  #takeError(link: V2Link, { headers, payload }: V2Message): void {
    const notice = decodeErrorNotice(payload);
    if (!notice.ok) return;
    const { code, message } = notice.value;
    if (headers.replyTo !== null) this.#links.onRefused(link, headers.replyTo, notice.value);
    else this.#tell({ type: 'notice', code, message });
  }

  #tell(status: AgentStatus): void {
    // In turns of their own: what a listener throws is its owner's, and interrupts nothing here.
    for (const listener of this.#listeners) void Promise.resolve(status).then(listener);
  }
}

/** Null for what JSON cannot say, or the protocol does not carry. */
function jsonText(value: unknown): string | null {
  try {
    const text = JSON.stringify(value);
    return text === undefined || isTooDeep(text) ? null : text;
  } catch {
    return null;
  }
}

function hex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}
