import { concatBytes, utf8 } from '../../agent-gateway/wire/bytes.ts';
import { v2CloseCodes } from '../../agent-gateway/wire/v2-limits.ts';
import {
  decodeBatch,
  encodeMessage,
  maxAcknowledgedIds,
  type V2Message,
  type V2OutgoingMessage,
} from '../../agent-gateway/wire/v2-message.ts';
import { recordOverheadBytes } from '../../agent-gateway/wire/v2-record.ts';
import { decodeErrorNotice, type ErrorNotice, sessionChannel } from '../../agent-gateway/wire/v2-session-channel.ts';
import { AgentError } from './agent-error.ts';
import type { V2Clock } from './clock.ts';
import type { OpenedSession, SessionListener } from './open-session.ts';
import { messageBytes, type Outbox } from './outbox.ts';
import type { LinkEnd } from './return-delay.ts';
import type { ConnectionClose } from './transport.ts';

/** Who a link belongs to. */
export interface LinkOwner {
  /** Everything but acknowledgements and refusals of what the outbox holds. */
  onMessage(link: V2Link, message: V2Message): void;
  /** The gateway does not take a message that is not the outbox's. */
  onRefused(link: V2Link, id: string, notice: ErrorNotice): void;
  onEnd(link: V2Link, end: LinkEnd): void;
}

export interface LinkOptions {
  readonly clock: V2Clock;
  readonly outbox: Outbox;
  readonly owner: LinkOwner;
  readonly newId: () => string;
  /** The age at which the key of a direction is changed. */
  readonly rekeyAfterMs: number;
  /** One message to a record, and one record at a time: finds out which message it is that the gateway cannot bear. */
  readonly isCareful: () => boolean;
}

/** So many records may be unacknowledged before what follows waits until it fills one, or something is acknowledged. */
const recordsAtOnce = 4;
/** What the connection has not taken yet, beyond which nothing is added. */
const maxBufferedBytes = 1024 * 1024;
/** How long a connection that was closed may take to be gone. */
const closingMs = 1_000;

interface SentRecord {
  /** Messages that are not acknowledged. */
  open: number;
}

interface InFlight {
  readonly sinceMs: number;
  readonly record: SentRecord;
}

export interface LinkCounts {
  recordsSent: number;
  recordsReceived: number;
  rekeys: number;
}

/** A session from M4 to its end: records both ways, acknowledgements, heartbeats, the change of keys. */
export class V2Link implements SessionListener {
  readonly grant: OpenedSession['grant'];
  readonly session: OpenedSession['session'];
  readonly counts: LinkCounts = { recordsSent: 0, recordsReceived: 0, rekeys: 0 };
  readonly openedMs: number;
  readonly #connection: OpenedSession['connection'];
  readonly #options: LinkOptions;
  /** Ids that the gateway has not acknowledged on this link, oldest first. */
  readonly #inFlight = new Map<string, InFlight>();
  readonly #acks: string[] = [];
  readonly #controls: V2OutgoingMessage[] = [];
  readonly #timers = new Map<string, () => void>();
  #openRecords = 0;
  #isOpen = true;
  #takesOutbox = true;
  #isPumpDue = false;
  #lastSentMs: number;
  #lastHeardMs: number;
  #keySinceMs: number;

  constructor({ connection, session, grant }: OpenedSession, options: LinkOptions) {
    this.grant = grant;
    this.session = session;
    this.#connection = connection;
    this.#options = options;
    this.openedMs = options.clock.monotonicMs();
    this.#lastSentMs = this.openedMs;
    this.#lastHeardMs = this.openedMs;
    this.#keySinceMs = this.openedMs;
  }

  get isOpen(): boolean {
    return this.#isOpen;
  }

  get inFlightIds(): readonly string[] {
    return [...this.#inFlight.keys()];
  }

  get #maxInFlight(): number {
    return this.#options.isCareful() ? 1 : this.grant.limits.maxInFlightMessages;
  }

  get #maxBatch(): number {
    return this.#options.isCareful() ? 1 : this.grant.limits.maxBatchMessages;
  }

  /** Heartbeats, and what waits in the outbox. */
  start(): void {
    this.#watchSilence();
    this.#beatWhenDue();
    this.pump();
  }

  /** A newer link sends from now on; this one is read, and acknowledges, until the gateway closes it. */
  retire(): void {
    this.#takesOutbox = false;
    this.#timers.get('acknowledgement')?.();
    this.#schedule('retired', this.grant.limits.ackTimeoutMs, () => this.close(1000, 'a newer link took over'));
  }

  acknowledge(id: string): void {
    this.#acks.push(id);
    this.pump();
  }

  /** Sends a message that is not the outbox's; a request is acknowledged as any other is. Gives its id. */
  say(message: Pick<V2OutgoingMessage, 'type' | 'channel' | 'headers'> & { readonly payload: unknown }): string {
    const { type, channel, headers = {}, payload } = message;
    const id = this.#options.newId();
    const timestampMs = this.#options.clock.nowMs();
    this.#controls.push({ id, type, channel, timestampMs, headers, payloadText: JSON.stringify(payload) });
    this.pump();
    return id;
  }

  /** Sends what can be sent, once this turn's work is done: what is reported in one turn shares records. */
  pump(): void {
    if (this.#isPumpDue || !this.#isOpen) return;
    this.#isPumpDue = true;
    void Promise.resolve().then(() => {
      this.#isPumpDue = false;
      while (this.#isOpen && this.#sendRecord());
    });
  }

  close(code: number, reason: string): void {
    this.#end({ code, reason, httpStatus: null, retryAfterMs: null, wasOpen: true, isByPeer: false });
  }

  received(frame: string | Uint8Array): void {
    if (!this.#isOpen) return;
    this.heard();
    const { maxRecordBytes, maxBatchMessages } = this.grant.limits;
    if (typeof frame === 'string' || frame.length > maxRecordBytes) {
      this.#failRecord();
      return;
    }
    const record = this.session.opener.open(frame);
    const batch = record.ok ? decodeBatch(record.json, maxBatchMessages) : null;
    if (!batch?.ok) {
      this.#failRecord();
      return;
    }
    this.counts.recordsReceived++;
    for (const message of batch.value) if (this.#isOpen) this.#take(message);
    this.pump();
  }

  heard(): void {
    this.#lastHeardMs = this.#options.clock.monotonicMs();
  }

  closed(close: ConnectionClose): void {
    this.#timers.get('closing')?.();
    this.#end({ ...close, wasOpen: true, isByPeer: true });
  }

  #take(message: V2Message): void {
    const { ackFor } = message.headers;
    if (message.type === 'ack') {
      this.#options.outbox.acknowledge(this.#noLongerInFlight(ackFor));
    } else if (message.type === 'error' && ackFor.length > 0) {
      const notice = decodeErrorNotice(message.payload);
      if (notice.ok) this.#refused(this.#noLongerInFlight(ackFor), notice.value);
    } else {
      this.#options.owner.onMessage(this, message);
    }
  }

  /** Ids that were never sent are passed over with the rest: the outbox knows its own. */
  #noLongerInFlight(ids: readonly string[]): readonly string[] {
    for (const id of ids) {
      const sent = this.#inFlight.get(id);
      if (!sent) continue;
      this.#inFlight.delete(id);
      if (--sent.record.open === 0) this.#openRecords--;
    }
    return ids;
  }

  #refused(ids: readonly string[], notice: ErrorNotice): void {
    const { outbox, owner } = this.#options;
    const { code, message, retryable, retryAfterMs } = notice;
    for (const id of ids) owner.onRefused(this, id, notice);
    if (!retryable) {
      outbox.refuse(ids, new AgentError(code, message));
      return;
    }
    for (const id of ids) outbox.hold(id);
    // Where no time was told: as late as an acknowledgement could have come, lest it wait for the end of the session.
    this.#schedule(`release ${ids[0]}`, retryAfterMs ?? this.grant.limits.ackTimeoutMs, () => {
      for (const id of ids) outbox.release(id);
    });
  }

  /** Seals and sends one record; false where there is nothing to send, or nothing may be sent. */
  #sendRecord(): boolean {
    const parts: Uint8Array[] = [];
    const room = this.grant.limits.maxRecordBytes - recordOverheadBytes - '[]'.length;
    const maxBatch = this.#maxBatch;
    let bytes = 0;
    const add = (part: Uint8Array): boolean => {
      if (parts.length >= maxBatch || bytes + part.length + 1 > room) return false;
      parts.push(part);
      bytes += part.length + 1;
      return true;
    };
    const record: SentRecord = { open: 0 };
    const written: string[] = [];
    this.#addAcks(add, room);
    this.#addControls(add, record);
    this.#addOutbox(add, room, record, written);
    if (parts.length === 0) return false;
    if (record.open > 0) this.#openRecords++;
    this.#seal(join(parts));
    this.#options.outbox.acknowledge(written);
    if (this.#inFlight.size > 0) this.#watchAcknowledgements();
    return true;
  }

  #addAcks(add: (part: Uint8Array) => boolean, room: number): void {
    // The longest id has 255 characters, of three bytes each.
    const maxIds = Math.min(maxAcknowledgedIds, Math.max(1, Math.floor(room / 2 / 800)));
    while (this.#acks.length > 0) {
      const taken = this.#acks.slice(0, maxIds);
      const message = { id: this.#options.newId(), type: 'ack', channel: sessionChannel, payloadText: '{}' } as const;
      const timestampMs = this.#options.clock.nowMs();
      if (!add(utf8(encodeMessage({ ...message, timestampMs, headers: { ackFor: taken } })))) return;
      this.#acks.splice(0, taken.length);
    }
  }

  #addControls(add: (part: Uint8Array) => boolean, record: SentRecord): void {
    for (let [message] = this.#controls; message; [message] = this.#controls) {
      if (!add(utf8(encodeMessage(message)))) return;
      this.#controls.shift();
      if (message.type === 'request' || message.type === 'event') this.#isSent(message.id, record);
    }
  }

  #addOutbox(add: (part: Uint8Array) => boolean, room: number, record: SentRecord, written: string[]): void {
    const { outbox } = this.#options;
    if (!this.#maySendMore(room)) return;
    const maxInFlight = this.#maxInFlight;
    for (let item = outbox.peek(); item && this.#inFlight.size < maxInFlight; item = outbox.peek()) {
      const part = messageBytes(item);
      if (part.length + 1 > room) {
        const detail = `the message has ${part.length} bytes; this gateway takes records of ${room}`;
        outbox.refuse([item.id], new AgentError('REPORT_INVALID', detail));
        continue;
      }
      if (!add(part)) return;
      outbox.take();
      // Errors are not acknowledged: they are done with once they are written.
      if (item.type === 'error') written.push(item.id);
      else this.#isSent(item.id, record);
    }
  }

  /** With several records under way what follows gathers until it fills one: signing is what a record costs. */
  #maySendMore(room: number): boolean {
    if (!this.#takesOutbox) return false;
    if (this.#openRecords === 0) return true;
    if (this.#connection.bufferedBytes() > maxBufferedBytes) return false;
    const { items, bytes } = this.#options.outbox.queued;
    return this.#openRecords < recordsAtOnce || items >= this.#maxBatch || bytes >= room / 2;
  }

  #isSent(id: string, record: SentRecord): void {
    record.open++;
    this.#inFlight.set(id, { sinceMs: this.#options.clock.monotonicMs(), record });
  }

  #seal(json: Uint8Array): void {
    const nowMs = this.#options.clock.monotonicMs();
    const { sealer } = this.session;
    if (nowMs - this.#keySinceMs >= this.#options.rekeyAfterMs) {
      sealer.rekey();
      this.#keySinceMs = nowMs;
      this.counts.rekeys++;
    }
    this.#connection.send(sealer.seal(json));
    this.counts.recordsSent++;
    this.#lastSentMs = nowMs;
  }

  #watchAcknowledgements(): void {
    if (this.#timers.has('acknowledgement') || !this.#takesOutbox) return;
    const [oldest] = this.#inFlight.values();
    if (!oldest) return;
    const { ackTimeoutMs } = this.grant.limits;
    const waitedMs = this.#options.clock.monotonicMs() - oldest.sinceMs;
    if (waitedMs >= ackTimeoutMs) {
      this.close(v2CloseCodes.dead, 'an acknowledgement did not come');
      return;
    }
    this.#schedule('acknowledgement', ackTimeoutMs - waitedMs, () => this.#watchAcknowledgements());
  }

  #beatWhenDue(): void {
    const { clock } = this.#options;
    const silentMs = clock.monotonicMs() - this.#lastSentMs;
    const { heartbeatMs } = this.grant;
    if (silentMs >= heartbeatMs) this.#beat();
    this.#schedule('heartbeat', silentMs >= heartbeatMs ? heartbeatMs : heartbeatMs - silentMs, () =>
      this.#beatWhenDue(),
    );
  }

  #beat(): void {
    this.say({ type: 'heartbeat', channel: 'agent.heartbeat', payload: {} });
    if (this.#connection.ping) this.#connection.ping();
    // Without pings nothing would come back. An event of the session that nobody knows is acknowledged all the same.
    else this.say({ type: 'event', channel: sessionChannel, payload: { op: 'echo' } });
  }

  #watchSilence(): void {
    const deadAfterMs = 2 * this.grant.heartbeatMs + 5_000;
    const silentMs = this.#options.clock.monotonicMs() - this.#lastHeardMs;
    if (silentMs >= deadAfterMs) {
      this.close(v2CloseCodes.dead, 'nothing was heard');
      return;
    }
    this.#schedule('silence', deadAfterMs - silentMs, () => this.#watchSilence());
  }

  #failRecord(): void {
    this.close(v2CloseCodes.badRecord, 'a bad record');
  }

  #schedule(name: string, delayMs: number, action: () => void): void {
    if (!this.#isOpen) return;
    this.#timers.get(name)?.();
    const cancel = this.#options.clock.schedule(delayMs, () => {
      this.#timers.delete(name);
      action();
    });
    this.#timers.set(name, () => {
      this.#timers.delete(name);
      cancel();
    });
  }

  #end(end: LinkEnd): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    for (const cancel of [...this.#timers.values()]) cancel();
    this.session.erase();
    if (!end.isByPeer) {
      this.#connection.close(end.code, end.reason);
      const cancelCut = this.#options.clock.schedule(closingMs, () => this.#connection.terminate());
      this.#timers.set('closing', cancelCut);
    }
    this.#options.owner.onEnd(this, end);
  }
}

function join(parts: readonly Uint8Array[]): Uint8Array {
  const pieces: Uint8Array[] = [openBracket];
  for (const [index, part] of parts.entries()) pieces.push(...(index > 0 ? [comma, part] : [part]));
  return concatBytes(...pieces, closeBracket);
}

const [openBracket, comma, closeBracket] = [utf8('['), utf8(','), utf8(']')];
