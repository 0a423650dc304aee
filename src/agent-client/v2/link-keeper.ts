import { encodeBase64Url } from '../../agent-gateway/wire/bytes.ts';
import { encodeIdentity, type V2Identity } from '../../agent-gateway/wire/v2-identity.ts';
import { v2CloseCodes } from '../../agent-gateway/wire/v2-limits.ts';
import type { V2Message } from '../../agent-gateway/wire/v2-message.ts';
import type { ErrorNotice } from '../../agent-gateway/wire/v2-session-channel.ts';
import { AgentError } from './agent-error.ts';
import type { IdentityKeeper } from './identity-keeper.ts';
import type { KeyRotation } from './key-rotation.ts';
import { type LinkCounts, type LinkOwner, V2Link } from './link.ts';
import { type OpenedSession, openSession, type SessionRequest } from './open-session.ts';
import type { AgentSettings } from './options.ts';
import type { Outbox } from './outbox.ts';
import { type LinkEnd, returnDelayMs } from './return-delay.ts';
import type { AgentState, AgentStatus } from './status.ts';

export interface KeeperParts {
  readonly settings: AgentSettings;
  readonly identity: IdentityKeeper;
  readonly outbox: Outbox;
  readonly rotation: KeyRotation;
  readonly newId: () => string;
  readonly tell: (status: AgentStatus) => void;
  readonly onMessage: (link: V2Link, message: V2Message) => void;
}

/** Keeps one link open, come what may: the next one after a loss, in its time, and a second one before a session ends. */
export class LinkKeeper implements LinkOwner {
  readonly #parts: KeeperParts;
  readonly #retired = new Set<V2Link>();
  #current: V2Link | null = null;
  #isClosed = false;
  #isDialling = false;
  #cancelAttempt: () => void = () => undefined;
  #links = 0;
  #failedAttempts = 0;
  /** Since the last session. */
  #attempts = 0;
  #cancelReturn: (() => void) | null = null;
  #cancelRenewal: () => void = () => undefined;
  /** What was under way when the gateway ended a link over a bad record. */
  #suspects: readonly string[] = [];
  #endedCounts: LinkCounts = { recordsSent: 0, recordsReceived: 0, rekeys: 0 };

  constructor(parts: KeeperParts) {
    this.#parts = parts;
  }

  get state(): AgentState {
    if (this.#isClosed) return 'closed';
    if (this.#current) return 'open';
    return this.#isDialling || this.#links === 0 ? 'connecting' : 'waiting';
  }

  /** The link that is sent over; null while there is none. */
  get current(): V2Link | null {
    return this.#current;
  }

  get counts(): LinkCounts & { readonly links: number; readonly failedAttempts: number } {
    const links = [...(this.#current ? [this.#current] : []), ...this.#retired];
    const all = links.reduce((sum, link) => added(sum, link.counts), this.#endedCounts);
    return { ...all, links: this.#links, failedAttempts: this.#failedAttempts };
  }

  /** Dials: for the first link, or for one that takes over from the present one. */
  connect(): void {
    if (this.#isDialling || this.#isClosed) return;
    this.#cancelReturn?.();
    this.#cancelReturn = null;
    this.#isDialling = true;
    this.#attempts++;
    void this.#attempt().then((end) => {
      this.#isDialling = false;
      if (!end) return;
      this.#failedAttempts++;
      this.#comeBack(end, 0);
    });
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#cancelAttempt();
    this.#cancelReturn?.();
    this.#cancelRenewal();
    for (const link of [this.#current, ...this.#retired]) link?.close(1000, 'the agent stops');
  }

  onMessage(link: V2Link, message: V2Message): void {
    this.#parts.onMessage(link, message);
  }

  onRefused(link: V2Link, id: string, notice: ErrorNotice): void {
    this.#parts.rotation.refused(link, id, notice).catch((error) => this.#storeFailed(error));
  }

  onEnd(link: V2Link, end: LinkEnd): void {
    this.#endedCounts = added(this.#endedCounts, link.counts);
    if (this.#retired.delete(link)) return;
    if (link !== this.#current) return;
    this.#current = null;
    this.#cancelRenewal();
    // An attempt to renew may be due much later.
    this.#cancelReturn?.();
    this.#cancelReturn = null;
    const isRecordRefused = end.code === v2CloseCodes.badRecord || end.code === v2CloseCodes.frameTooLong;
    if (isRecordRefused && end.isByPeer) this.#suspect(link.inFlightIds);
    if (end.code === v2CloseCodes.revoked) this.#parts.tell({ type: 'revoked' });
    // Where an attempt is under way the newer link is our own.
    if (end.code === v2CloseCodes.superseded && !this.#isDialling) this.#parts.tell({ type: 'superseded' });
    this.#comeBack(end, this.#parts.settings.clock.monotonicMs() - link.openedMs);
  }

  #comeBack(end: LinkEnd, sessionMs: number): void {
    const { clock, random, timings } = this.#parts.settings;
    const { code, reason, httpStatus } = end;
    const isDue = !this.#isClosed && !this.#isDialling && !this.#cancelReturn;
    const delayMs = isDue ? returnDelayMs(end, { attempts: this.#attempts, sessionMs, random }, timings) : null;
    this.#parts.tell({ type: 'closed', code, reason, httpStatus, returnsInMs: delayMs });
    if (delayMs !== null) this.#cancelReturn = clock.schedule(delayMs, () => this.connect());
  }

  /** Gives how the attempt ended where it came to nothing. */
  async #attempt(): Promise<LinkEnd | null> {
    const { settings } = this.#parts;
    const { outcome, cancel } = openSession(this.#request());
    this.#cancelAttempt = cancel;
    const attempt = await outcome;
    if (!attempt.ok) return attempt.end;
    try {
      await this.#keep(attempt);
    } catch (error) {
      attempt.session.erase();
      attempt.connection.close(1000, 'not wanted');
      settings.clock.schedule(1_000, () => attempt.connection.terminate());
      const isOvertaken = error instanceof AgentError;
      if (!isOvertaken) this.#storeFailed(error);
      const reason = isOvertaken ? error.message : 'what the gateway told could not be stored';
      return { code: 1006, reason, httpStatus: null, retryAfterMs: null, wasOpen: false, isByPeer: false };
    }
    this.#adopt(attempt);
    return null;
  }

  #request(): SessionRequest {
    const { settings, identity } = this.#parts;
    const { transport, clock, suite, url, deploymentId, bindsChannel, timings } = settings;
    const { pins } = identity.current;
    return {
      ...{ transport, clock, suite, url, deploymentId, bindsChannel },
      ...{ key: identity.key(), identity: this.#identify() },
      pins: settings.pins === null && pins.length === 0 ? null : pins,
      ...{ dialTimeoutMs: timings.dialTimeoutMs, handshakeTimeoutMs: timings.handshakeTimeoutMs },
    };
  }

  /** Tells of the host until the gateway has let the agent in with it, and again when there is news. */
  #identify(): V2Identity {
    const { settings, identity } = this.#parts;
    const { agentId, orgId, enrollment } = settings;
    const isKnown = identity.current.enrolledAs === this.#enrollmentDigest();
    return { agentId, orgId, enroll: isKnown ? null : enrollment };
  }

  #enrollmentDigest(): string {
    const { agentId, orgId, enrollment, suite } = this.#parts.settings;
    return encodeBase64Url(suite.sha256(encodeIdentity({ agentId, orgId, enroll: enrollment })));
  }

  /** Stores what the grant tells, before anything depends on it. Throws where it cannot be, or the gateway was overtaken. */
  async #keep({ grant, session }: OpenedSession): Promise<void> {
    const { identity } = this.#parts;
    const { epoch } = identity.current;
    if (grant.epoch < epoch)
      throw new AgentError('EPOCH_LOWER', `the gateway is at ${grant.epoch}, we were at ${epoch}`);
    const pins = identity.pinsFor(grant.keys, session.peerFingerprint);
    await identity.update({ uid: grant.agentUid, epoch: grant.epoch, pins, enrolledAs: this.#enrollmentDigest() });
  }

  #adopt(opened: OpenedSession): void {
    const { settings, outbox, newId, rotation, tell } = this.#parts;
    const { clock, random, timings } = settings;
    const link = new V2Link(opened, {
      ...{ clock, outbox, owner: this, newId, rekeyAfterMs: timings.rekeyAfterMs },
      isCareful: () => this.#suspects.some((id) => outbox.has(id)),
    });
    const previous = this.#current;
    this.#current = link;
    this.#links++;
    this.#attempts = 0;
    if (previous) {
      this.#retired.add(previous);
      previous.retire();
    }
    outbox.rewind();
    link.start();
    const { grant, session } = link;
    const { agentUid: uid, epoch, enrollment } = grant;
    tell({ type: 'open', uid, epoch, enrollment, gateway: session.peerFingerprint });
    rotation.ask(link);
    this.#cancelRenewal();
    const sessionMs = Math.max(0, grant.expiresAtMs - grant.serverTimeMs);
    this.#cancelRenewal = clock.schedule(sessionMs * (0.8 + 0.1 * random()), () => this.connect());
    opened.listen(link);
    if (this.#isClosed) link.close(1000, 'the agent stops');
  }

  /** The second time, where it is one message alone, it is that one, and leaves. */
  #suspect(inFlightIds: readonly string[]): void {
    const { outbox } = this.#parts;
    const suspects = inFlightIds.filter((id) => outbox.has(id));
    const [only, ...others] = suspects;
    if (only !== undefined && others.length === 0 && this.#suspects.includes(only))
      outbox.refuse([only], new AgentError('RECORD_REFUSED', 'the gateway ended two links at this message'));
    else this.#suspects = suspects;
  }

  #storeFailed(error: unknown): void {
    this.#parts.tell({ type: 'store-failed', error });
  }
}

function added(left: LinkCounts, right: LinkCounts): LinkCounts {
  return {
    recordsSent: left.recordsSent + right.recordsSent,
    recordsReceived: left.recordsReceived + right.recordsReceived,
    rekeys: left.rekeys + right.rekeys,
  };
}
