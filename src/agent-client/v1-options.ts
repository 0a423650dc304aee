import type { ClientOptions } from 'ws';
import { nobleCrypto } from '../agent-gateway/crypto/noble.ts';
import type { CryptoSuite } from '../agent-gateway/crypto/suite.ts';
import { type AgentClock, systemClock } from './clock.ts';
import type { JsonValue } from './go-json.ts';
import { calmHabits, type Dialect, deployedTimings, type Habits, type Timings } from './habits.ts';
import { AgentIdentity, type Registration } from './identity.ts';
import type { RegistrationFacts } from './v1-frames.ts';

/** What an agent tells of its host when it registers; what is left out is as in the recordings. */
export interface HostFacts {
  readonly orgId: string;
  readonly machineIdHash: string;
  readonly agentVersion: string;
  readonly capabilities: JsonValue;
  readonly platform: JsonValue;
  readonly network: JsonValue;
}

export interface V1AgentOptions {
  /** `ws://` or `wss://`, with the path. */
  readonly url: string;
  /** The name the agent gives itself, a host name as a rule. */
  readonly agentId: string;
  /** `enveloped` where absent. */
  readonly dialect?: Dialect;
  /** The portable one where absent; the native one is ten times as fast. */
  readonly suite?: CryptoSuite;
  /** 32 bytes that the key pair is made of. A new one at each start where absent, as deployed agents have it. */
  readonly seed?: Uint8Array;
  /** What an earlier registration gave; with it the agent reconnects instead of registering. */
  readonly registration?: Registration;
  readonly facts?: Partial<HostFacts>;
  /** Departures from `calmHabits`; spread one of `deployedHabits` here for an agent as in the field. */
  readonly habits?: Partial<Habits>;
  /** Departures from `deployedTimings`. */
  readonly timings?: Partial<Timings>;
  readonly clock?: AgentClock;
  /** The suite's where absent. */
  readonly randomBytes?: (length: number) => Uint8Array;
  /** Further headers of the upgrade request, or others in place of the agent's own. */
  readonly headers?: Readonly<Record<string, string>>;
  /** TLS trust and the like, handed to `ws`. */
  readonly socket?: ClientOptions;
  /** How many commands, and how many events of its own life, the agent keeps at least; 1,000 where absent. */
  readonly journalLimit?: number;
}

/** The options with every default in its place. */
export interface V1AgentSettings {
  readonly url: string;
  readonly dialect: Dialect;
  readonly identity: AgentIdentity;
  readonly facts: RegistrationFacts;
  readonly habits: Habits;
  readonly timings: Timings;
  readonly clock: AgentClock;
  readonly randomBytes: (length: number) => Uint8Array;
  readonly headers: Readonly<Record<string, string>>;
  readonly socket: ClientOptions;
  readonly journalLimit: number;
}

/** Fills in the defaults. Throws a TypeError for a URL that is none and a RangeError for a seed that has not 32 bytes. */
export function settleOptions(options: V1AgentOptions): V1AgentSettings {
  const suite = options.suite ?? nobleCrypto;
  const dialect = options.dialect ?? 'enveloped';
  const randomBytes = options.randomBytes ?? suite.randomBytes;
  const seed = options.seed ?? randomBytes(32);
  const identity = new AgentIdentity(suite, options.agentId, seed, options.registration ?? null);
  const facts = options.facts ?? {};
  return {
    url: new URL(options.url).href,
    dialect,
    identity,
    facts: {
      org_id: facts.orgId ?? 'default-org',
      host_id: options.agentId,
      agent_pubkey: identity.publicKeyBase64,
      machine_id_hash: facts.machineIdHash ?? 'test-machine-hash',
      agent_version: facts.agentVersion ?? '1.0.0',
      capabilities: facts.capabilities ?? {},
      platform: facts.platform ?? { arch: 'arm64', os: 'linux' },
      network: facts.network ?? { interface: 'eth0' },
    },
    habits: { ...calmHabits, ...options.habits },
    timings: { ...deployedTimings[dialect], ...options.timings },
    clock: options.clock ?? systemClock,
    randomBytes,
    headers: options.headers ?? {},
    socket: options.socket ?? {},
    journalLimit: options.journalLimit ?? 1_000,
  };
}
