import type { NoteRefusal } from '../audit/refusals.ts';
import type { Clock } from '../clock.ts';
import type { ErrorCode } from '../errors.ts';
import type { Ingest } from '../events/ingest.ts';
import type { Admissions } from '../fleet/admission.ts';
import type { AgentProtocol } from '../fleet/agent.ts';
import type { Registration } from '../fleet/registration.ts';
import type { Dispatch } from '../messages/dispatch.ts';
import type { Allowances } from './allowance.ts';
import type { CryptoSuite } from './crypto/suite.ts';
import type { RecordCause } from './crypto/v2-records.ts';
import type { HandshakeCause } from './crypto/v2-steps.ts';
import type { GatewayIdentity } from './identity.ts';

/** What every link works with. */
export interface GatewayContext {
  readonly suite: CryptoSuite;
  /** The gateway's keys; the public half of the current one is a v1 agent's `backend_key`. */
  readonly identity: GatewayIdentity;
  readonly clock: Clock;
  /** What time it is. */
  readonly wall: Pick<Clock, 'now'>;
  readonly admissions: Admissions;
  readonly registration: Registration;
  readonly ingest: Ingest;
  readonly dispatch: Dispatch;
  /** Whether an agent of this organisation has this name or uid. */
  readonly agentExists: (orgId: string, ref: string) => Promise<boolean>;
  readonly allowances: Allowances;
  readonly clockSkewMs: number;
  readonly v2: V2Settings;
  readonly report: LinkReport;
  /** Puts refusals on record, summed up. What the fleet refuses it tells of itself. */
  readonly noteRefusal: NoteRefusal;
}

/** What a deployment has chosen of protocol v2. */
export interface V2Settings {
  /** As configured in its agents too. */
  readonly deploymentId: string;
  /** Whether agents must bind their handshake to the TLS connection. */
  readonly tlsExporter: 'off' | 'required';
  /** The age at which a key of records gives way to the next one. */
  readonly rekeyAfterMs: number;
}

/** Why a handshake of v2 failed. Told to nobody outside. */
export type HandshakeFault = HandshakeCause | 'not-text' | 'unfinished';

/** Why a record ended its link. Told to nobody outside. */
export type RecordFault = RecordCause | 'not-binary' | 'unsound-messages';

/** An authentication that was answered. */
export interface Authentication {
  readonly protocol: AgentProtocol;
  /** Null unless the agent has proved its key. */
  readonly agentName: string | null;
  readonly durationMs: number;
  /** Why it was refused. */
  readonly code: ErrorCode | null;
}

/** What links tell of themselves. */
export interface LinkReport {
  /** An upgrade was answered with an error in place of 101. */
  refusedUpgrade(code: ErrorCode): void;
  /** An upgrade of v1 was let in after so long. */
  admittedUpgrade(heldMs: number): void;
  authenticated(authentication: Authentication): void;
  /** A frame was dropped. Every one is counted; what is logged is bounded. */
  refusedFrame(agentName: string, code: ErrorCode): void;
  /** Beside the HANDSHAKE_FAILED that `authenticated` is told. */
  failedHandshake(fault: HandshakeFault): void;
  /** A record ended its link. */
  refusedRecord(agentName: string, fault: RecordFault): void;
  opened(agentName: string, remoteAddress: string | null): void;
  closed(agentName: string, reason: string): void;
  error(error: unknown, context: string): void;
}
