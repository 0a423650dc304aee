import type { Clock } from '../clock.ts';
import type { ErrorCode } from '../errors.ts';
import type { Ingest } from '../events/ingest.ts';
import type { Admissions } from '../fleet/admission.ts';
import type { Registration } from '../fleet/registration.ts';
import type { Dispatch } from '../messages/dispatch.ts';
import type { CryptoSuite, SigningKey } from './crypto/suite.ts';

/** What every link works with. */
export interface GatewayContext {
  readonly suite: CryptoSuite;
  /** The gateway's identity; its public half is every v1 agent's `backend_key`. */
  readonly gatewayKey: SigningKey;
  readonly clock: Clock;
  readonly admissions: Admissions;
  readonly registration: Registration;
  readonly ingest: Ingest;
  readonly dispatch: Dispatch;
  /** Whether an agent of this organisation has this name or uid. */
  readonly agentExists: (orgId: string, ref: string) => Promise<boolean>;
  readonly clockSkewMs: number;
  readonly report: LinkReport;
}

/** What links tell of themselves. */
export interface LinkReport {
  /** An authentication was answered after `durationMs`; `code` tells why it was refused. */
  authenticated(durationMs: number, code: ErrorCode | null): void;
  /** A frame was dropped. Every one is counted; what is logged is bounded. */
  refusedFrame(agentName: string, code: ErrorCode): void;
  opened(agentName: string, remoteAddress: string | null): void;
  closed(agentName: string, reason: string): void;
  error(error: unknown, context: string): void;
}
