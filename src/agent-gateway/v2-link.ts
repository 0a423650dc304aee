import { randomUUID } from 'node:crypto';
import { AegisError, type ErrorCode } from '../errors.ts';
import type { IngestOutcome } from '../events/ingest.ts';
import type { Admission, AuthenticatedAgent, LinkStanding } from '../fleet/admission.ts';
import type { CommandLink } from '../messages/command-link.ts';
import { AgentLink, type LinkConnection } from './agent-link.ts';
import type { GatewayContext, RecordFault } from './context.ts';
import { verifyRotation } from './crypto/v2-key-rotation.ts';
import type { SealedRecord } from './crypto/v2-records.ts';
import type { V2Session } from './crypto/v2-session.ts';
import type { GatewayKeys } from './key-files.ts';
import type { Links } from './links.ts';
import { patiently } from './patience.ts';
import { errorDraft, V2Answers, type V2Draft } from './v2-answers.ts';
import { V2Commands } from './v2-commands.ts';
import { readV2Event } from './v2-inbound.ts';
import { packRecords, recordJson } from './v2-packing.ts';
import { defaultHeartbeatMs, defaultSessionLimits } from './wire/v2-limits.ts';
import { decodeBatch, encodeMessage, type V2Message } from './wire/v2-message.ts';
import {
  decodeErrorNotice,
  decodeKeyRotation,
  encodeEnrollmentNotice,
  encodeKeysNotice,
  encodeRotated,
  encodeSessionGrant,
  sessionChannel,
  sessionOperation,
} from './wire/v2-session-channel.ts';

/** Text belongs to the handshake, bytes are a record. */
export type V2Frame = string | Uint8Array;

const limits = defaultSessionLimits;
/** docs/PROTOCOL.md, "Heartbeats". */
const patience = { pingAfterMs: defaultHeartbeatMs, deadAfterMs: 2 * defaultHeartbeatMs + 5_000 };
/** So many commands may be on their way to the agent at once. */
const maxUnreadCommands = 64;
/** Signing for a whole fleet at once would stop everything else: agents are told of new keys one after the other. */
const announcementSpreadMs = 4_000;

/** One v2 agent's connection: docs/PROTOCOL.md, from "Records" on. */
export class V2Link extends AgentLink<V2Frame> {
  readonly protocol = 'v2';
  protected readonly patience = patience;
  protected readonly maxWaitingEvents = limits.maxInFlightMessages;
  readonly #session: V2Session;
  readonly #expiresAtMs: number;
  /** The same by the clock that nobody sets. */
  readonly #endsAtMs: number;
  readonly #commands: V2Commands;
  readonly #answers = new V2Answers((drafts) => this.#say(drafts));
  #keySinceMs: number;
  #ignoreKeys: () => void = () => {};

  constructor(
    connection: LinkConnection<V2Frame>,
    session: V2Session,
    agent: AuthenticatedAgent,
    admission: Admission,
    context: GatewayContext,
    links: Links,
  ) {
    super(connection, agent, admission, context, links);
    this.#session = session;
    this.#expiresAtMs = admission.sessionExpiresAt.getTime();
    this.#keySinceMs = context.clock.now();
    this.#endsAtMs = this.#keySinceMs + this.#expiresAtMs - context.wall.now();
    this.#commands = new V2Commands(context, limits, (messages) => this.#write(messages));
  }

  /** The first record, M4. */
  grant({ standing, agentEpoch, sessionToken }: Admission): void {
    const { identity, wall } = this.context;
    const grant = encodeSessionGrant({
      ...{ agentUid: standing.agentUid, epoch: agentEpoch, sessionToken, limits },
      ...{ expiresAtMs: this.#expiresAtMs, serverTimeMs: wall.now(), heartbeatMs: defaultHeartbeatMs },
      ...{ enrollment: standing.trusted ? 'trusted' : 'quarantined', keys: publicKeys(identity) },
    });
    this.#say([{ type: 'response', channel: sessionChannel, payloadText: JSON.stringify(grant) }]);
  }

  override start(): void {
    this.#ignoreKeys = this.context.identity.onChange((keys) => this.#announce(keys));
    super.start();
  }

  protected take(frame: V2Frame): Promise<void> | null {
    if (!this.isReading) return null;
    this.tookFrame();
    if (typeof frame === 'string') return this.#failRecord('not-binary');
    const record = this.#session.opener.open(frame);
    if (!record.ok) return this.#failRecord(record.cause);
    const batch = decodeBatch(record.json, limits.maxBatchMessages);
    if (!batch.ok) return this.#failRecord('unsound-messages');
    const rotations: V2Message[] = [];
    for (const message of batch.value) {
      if (isRotation(message)) rotations.push(message);
      else this.#take(message);
    }
    return rotations.length > 0 ? this.#rotate(rotations) : null;
  }

  override async update(standing: LinkStanding): Promise<void> {
    const wasTrusted = this.standing.trusted;
    await super.update(standing);
    if (this.isOpen && standing.trusted && !wasTrusted) this.#tell(encodeEnrollmentNotice('trusted'));
  }

  override checkHealth(nowMs: number): void {
    if (nowMs >= this.#endsAtMs) this.close('SESSION_ENDED');
    super.checkHealth(nowMs);
  }

  protected get takesCommands(): boolean {
    return true;
  }

  protected commandWriter(canWrite: () => boolean): Pick<CommandLink, 'maxBatch' | 'write'> {
    return { maxBatch: maxUnreadCommands, write: (commands) => this.#commands.write(commands, canWrite) };
  }

  protected override endOf(standing: LinkStanding): ErrorCode | null {
    // Another key is the agent's by now. What this link still brought would be stored as a stranger's; over its newer link
    // the agent sends again what was not acknowledged.
    const isReplaced = this.standing.trusted && !standing.trusted;
    return super.endOf(standing) ?? (isReplaced ? 'LINK_SUPERSEDED' : null);
  }

  protected override giveUp(): void {
    this.close('LINK_DEAD');
  }

  protected hush(): void {
    this.#commands.end();
  }

  protected release(): void {
    this.#ignoreKeys();
    this.#commands.end();
    this.#session.erase();
  }

  #take(message: V2Message): void {
    const { id, type, channel, headers, payload } = message;
    if (type === 'ack') {
      this.#commands.acknowledged(headers.ackFor);
    } else if (type === 'error' && headers.ackFor.length > 0) {
      const notice = decodeErrorNotice(payload);
      this.#commands.refused(headers.ackFor, notice.ok ? notice.value : null);
    } else if (channel !== sessionChannel) {
      this.#takeEvent(message);
    } else if (isAcknowledged(message)) {
      this.#answers.acknowledge(id);
    }
  }

  #takeEvent(message: V2Message): void {
    const read = readV2Event(message, this.standing, this.publicKey, this.context.wall.now());
    if ('refused' in read) this.#refuse(message, read.refused);
    else this.store(read.event, (outcome) => this.#settle(message, outcome));
  }

  #settle(message: V2Message, outcome: IngestOutcome): void {
    if (outcome === 'conflict') this.#refuse(message, 'FRAME_ID_REUSED');
    else if (outcome === 'refused') this.#refuse(message, 'FRAME_PAYLOAD_INVALID');
    else if (isAcknowledged(message)) this.#answers.acknowledge(message.id);
  }

  #refuse(message: V2Message, code: ErrorCode): void {
    this.refuse(code);
    if (isAcknowledged(message)) this.#answers.refuse(message.id, code);
  }

  async #rotate(requests: readonly V2Message[]): Promise<void> {
    for (const { id, payload } of requests) {
      try {
        await this.#putNext(payload);
        this.#answers.acknowledge(id);
        const payloadText = JSON.stringify(encodeRotated());
        this.#say([{ type: 'response', channel: sessionChannel, payloadText, headers: { replyTo: id } }]);
      } catch (error) {
        if (!(error instanceof AegisError)) throw error;
        this.refuse(error.code);
        this.#say([errorDraft(error.code, { ackFor: [id], replyTo: id })]);
      }
    }
  }

  /** Has the key put on record that the agent will come back with. */
  async #putNext(payload: unknown): Promise<void> {
    const { suite, admissions } = this.context;
    const rotation = decodeKeyRotation(payload);
    if (!rotation.ok) throw new AegisError(rotation.code);
    const { publicKey } = rotation.value;
    if (!suite.isPublicKey(publicKey)) throw new AegisError('BAD_PUBKEY');
    if (!verifyRotation(suite, this.#session, rotation.value)) throw new AegisError('AUTH_SIGNATURE_INVALID');
    const { agentUid, epoch } = this;
    if (epoch === null) throw new AegisError('KEY_CONFLICT');
    const next = Buffer.from(publicKey).toString('base64');
    await patiently(this.context, 'a rotation', () =>
      admissions.rotateKey({ agentUid, epoch, publicKey: this.publicKey }, next),
    );
  }

  #announce(keys: GatewayKeys): void {
    const delayMs = Number.parseInt(this.agentUid.slice(0, 4), 16) % announcementSpreadMs;
    this.context.clock.after(delayMs, () => this.#tell(encodeKeysNotice(publicKeys(keys))));
  }

  #tell(notice: object): void {
    this.#say([{ type: 'event', channel: sessionChannel, payloadText: JSON.stringify(notice) }]);
  }

  #say(drafts: readonly V2Draft[]): void {
    if (this.socket.readyState !== this.socket.OPEN) return;
    const timestampMs = this.context.wall.now();
    const messages = drafts.map((draft) => ({ json: encodeMessage({ ...draft, id: randomUUID(), timestampMs }) }));
    for (const record of packRecords(messages, limits)) this.#write(record);
  }

  #write(messages: readonly { readonly json: string }[]): SealedRecord {
    const { sealer } = this.#session;
    const nowMs = this.context.clock.now();
    if (nowMs - this.#keySinceMs >= this.context.v2.rekeyAfterMs) {
      sealer.rekey();
      this.#keySinceMs = nowMs;
    }
    const record = sealer.sealRecord(recordJson(messages));
    this.send(record.frame);
    return record;
  }

  #failRecord(cause: RecordFault): null {
    this.context.report.refusedRecord(this.name, cause);
    this.noteAttack('RECORD_INVALID');
    this.close('RECORD_INVALID');
    return null;
  }
}

/** docs/PROTOCOL.md, "Delivery". */
function isAcknowledged({ type }: V2Message): boolean {
  return type === 'event' || type === 'request' || type === 'response';
}

function isRotation({ type, channel, payload }: V2Message): boolean {
  return type === 'request' && channel === sessionChannel && sessionOperation(payload) === 'rotate';
}

function publicKeys({ current, next }: GatewayKeys) {
  return { current: current.publicKey, next: next?.publicKey ?? null };
}
