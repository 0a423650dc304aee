import type { Authenticate } from '../access/authenticate.ts';
import type { RateLimits } from '../access/rate-limits.ts';
import type { Clock } from '../clock.ts';
import type { Fleet } from '../fleet/fleet.ts';
import type { Registration } from '../fleet/registration.ts';
import type { LogRequestError } from '../http/request-origin.ts';
import type { Messages } from '../messages/messages.ts';

/** Whether the gateway can serve, and what each part that it needs says. The texts are shown to anyone. */
export interface Readiness {
  readonly ready: boolean;
  readonly checks: Readonly<Record<string, string>>;
  /** What does no harm yet. */
  readonly warnings: readonly string[];
}

/** What REST stands on. */
export interface RestServices {
  readonly authenticate: Authenticate;
  readonly rateLimits: RateLimits;
  readonly fleet: Fleet;
  readonly registration: Registration;
  readonly messages: Messages;
  readonly readiness: () => Promise<Readiness>;
  readonly metrics: () => Promise<{ readonly contentType: string; readonly body: string }>;
  readonly logError: LogRequestError;
  readonly clock: Clock;
  readonly version: string;
}
