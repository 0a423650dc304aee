import { nobleCrypto } from '../../agent-gateway/crypto/noble.ts';
import type { CryptoSuite } from '../../agent-gateway/crypto/suite.ts';
import { keyFingerprint } from '../../agent-gateway/crypto/v2-schedule.ts';
import { isIdentifier } from '../../agent-gateway/wire/text.ts';
import { encodeIdentity, maxIdentityBytes, type V2Enrollment } from '../../agent-gateway/wire/v2-identity.ts';
import { maxGenerationMs } from '../../agent-gateway/wire/v2-limits.ts';
import { AgentError } from './agent-error.ts';
import { systemV2Clock, type V2Clock } from './clock.ts';
import type { OutboxLimits } from './outbox.ts';
import { defaultReturnTimings, type ReturnTimings } from './return-delay.ts';
import type { AgentStore } from './store.ts';
import type { Transport } from './transport.ts';

/** What an agent tells of its host. */
export interface AgentHost {
  /** The agent's id where absent. */
  readonly hostId?: string;
  readonly agentVersion?: string;
  readonly machineIdHash?: string;
  /** JSON of any shape. */
  readonly platform?: unknown;
  readonly network?: unknown;
  readonly capabilities?: unknown;
}

export interface AgentTimings extends ReturnTimings {
  readonly dialTimeoutMs: number;
  /** From the upgrade to the session. */
  readonly handshakeTimeoutMs: number;
  /** The age at which the key of a direction is changed. */
  readonly rekeyAfterMs: number;
}

export interface AgentOptions {
  /** `wss://…/ws/agent` */
  readonly url: string;
  /** The agent's name, 1 to 255 characters. */
  readonly agentId: string;
  /** Its organisation; the gateway's default one where absent. */
  readonly orgId?: string;
  /**
   * The fingerprints of the gateway's keys, 64 hexadecimal digits each, as `keys list` prints them; or the keys, 32 bytes each.
   * `'trust-first'` pins the first gateway that answers: whoever can stand in its place that once is trusted.
   */
  readonly pins: readonly (string | Uint8Array)[] | 'trust-first';
  readonly enrollmentToken?: string;
  readonly host?: AgentHost;
  readonly store: AgentStore;
  readonly transport: Transport;
  /** `nobleCrypto` where absent, which runs everywhere. */
  readonly crypto?: CryptoSuite;
  /** As the gateway is configured; empty where absent. */
  readonly deploymentId?: string;
  /** Binds the handshake to the TLS connection, which must then end at the gateway itself. */
  readonly bindsChannel?: boolean;
  /** 10,000 messages and 16 MiB where absent; the last tenth of each is for `priority: 'high'`. */
  readonly outbox?: Partial<OutboxLimits>;
  readonly timings?: Partial<AgentTimings>;
  readonly clock?: V2Clock;
  /** From 0 up to, not including, 1; spreads agents over time, and keeps no secret. */
  readonly random?: () => number;
}

export interface AgentSettings {
  readonly url: string;
  readonly agentId: string;
  readonly orgId: string | null;
  /** Fingerprints; null for trust on first use. */
  readonly pins: readonly string[] | null;
  readonly enrollment: V2Enrollment;
  readonly store: AgentStore;
  readonly transport: Transport;
  readonly suite: CryptoSuite;
  readonly deploymentId: string;
  readonly bindsChannel: boolean;
  readonly outbox: OutboxLimits;
  readonly timings: AgentTimings;
  readonly clock: V2Clock;
  readonly random: () => number;
}

export const defaultAgentTimings: AgentTimings = {
  ...defaultReturnTimings,
  dialTimeoutMs: 10_000,
  handshakeTimeoutMs: 15_000,
  rekeyAfterMs: maxGenerationMs,
};

const defaultOutboxLimits: OutboxLimits = { maxItems: 10_000, maxBytes: 16 * 1024 * 1024 };

/** Throws `OPTIONS_INVALID`. */
export function settleOptions(options: AgentOptions): AgentSettings {
  const suite = options.crypto ?? nobleCrypto;
  const { url, agentId, orgId = null, enrollmentToken = null, host = {} } = options;
  if (!/^wss?:\/\/./.test(url)) throw new AgentError('OPTIONS_INVALID', 'url: ws:// or wss://');
  const enrollment = {
    ...{ token: enrollmentToken, hostId: host.hostId ?? agentId },
    ...{ agentVersion: host.agentVersion ?? null, machineIdHash: host.machineIdHash ?? null },
    ...{ platform: host.platform, network: host.network, capabilities: host.capabilities },
  };
  const texts = { agentId, orgId, enrollmentToken, hostId: enrollment.hostId, agentVersion: enrollment.agentVersion };
  for (const [name, text] of Object.entries(texts))
    if (text !== null && !isIdentifier(text))
      throw new AgentError('OPTIONS_INVALID', `${name}: 1 to 255 characters, no control characters`);
  if (encodeIdentity({ agentId, orgId, enroll: enrollment }).length > maxIdentityBytes)
    throw new AgentError('OPTIONS_INVALID', `host: more than ${maxIdentityBytes} bytes in all`);
  return {
    ...{ url, agentId, orgId, enrollment, pins: fingerprints(options.pins, suite) },
    ...{ store: options.store, transport: options.transport, suite },
    ...{ deploymentId: options.deploymentId ?? '', bindsChannel: options.bindsChannel ?? false },
    outbox: { ...defaultOutboxLimits, ...options.outbox },
    timings: { ...defaultAgentTimings, ...options.timings },
    ...{ clock: options.clock ?? systemV2Clock, random: options.random ?? Math.random },
  };
}

function fingerprints(pins: AgentOptions['pins'], suite: CryptoSuite): readonly string[] | null {
  if (pins === 'trust-first') return null;
  if (pins.length === 0) throw new AgentError('OPTIONS_INVALID', "pins: at least one, or 'trust-first'");
  return pins.map((pin) => {
    if (typeof pin !== 'string') {
      if (!suite.isPublicKey(pin)) throw new AgentError('OPTIONS_INVALID', 'pins: not a public key');
      return keyFingerprint(suite, pin);
    }
    const fingerprint = pin.toLowerCase();
    if (!/^[0-9a-f]{64}$/.test(fingerprint))
      throw new AgentError('OPTIONS_INVALID', 'pins: a fingerprint has 64 hexadecimal digits');
    return fingerprint;
  });
}
