import { createHash, randomUUID } from 'node:crypto';
import { nativeCrypto } from '../../src/agent-gateway/crypto/native.ts';
import type { SigningKey } from '../../src/agent-gateway/crypto/suite.ts';
import type { V2Enrollment } from '../../src/agent-gateway/wire/v2-identity.ts';
import type { Refusal } from '../../src/audit/refusals.ts';
import { createMemoryBus } from '../../src/bus/memory-bus.ts';
import { systemClock } from '../../src/clock.ts';
import type { Database } from '../../src/db/database.ts';
import { AegisError } from '../../src/errors.ts';
import type { Admission, Admissions, AuthenticatedV1Agent, AuthenticatedV2Agent } from '../../src/fleet/admission.ts';
import type { AdmissionPolicy } from '../../src/fleet/admission-policy.ts';
import { createAdmissions } from '../../src/fleet/create-admissions.ts';
import { createEnrollmentTokens } from '../../src/fleet/create-enrollment-tokens.ts';
import { createFleet } from '../../src/fleet/create-fleet.ts';
import { createRegistration } from '../../src/fleet/create-registration.ts';
import type { EnrollmentTokens } from '../../src/fleet/enrollment-tokens.ts';
import type { Fleet } from '../../src/fleet/fleet.ts';
import { createPresence } from '../../src/fleet/presence.ts';
import { createWallClock } from '../../src/wall-clock.ts';
import { changerOf } from '../support/changer.ts';
import { insertInstance, newKey } from './agents.ts';

export const everything = changerOf(null);

/** One gateway's fleet without a gateway: links are what `admit` says of them. */
export interface FleetUnderTest {
  readonly admissions: Admissions;
  readonly fleet: Fleet;
  readonly tokens: EnrollmentTokens;
  /** What the fleet has noted. */
  readonly refusals: readonly Refusal[];
  /** Lets a v1 agent in; its code where it is refused. */
  v1(name: string, given?: Partial<AuthenticatedV1Agent>): Promise<Admission | string>;
  v2(name: string, given?: Partial<AuthenticatedV2Agent>): Promise<Admission | string>;
  /** Registers over HTTP, as a v1 agent does; the code where that is refused. */
  registerOverHttp(name: string, key?: SigningKey): Promise<string | null>;
  /** Asks for a challenge and never signs it. */
  beginOverHttp(name: string, publicKey: string): Promise<unknown>;
  /** An enrolment token's secret. */
  token(given?: { readonly orgId?: string; readonly agentName?: string }): Promise<string>;
}

export async function fleetUnderTest(
  database: Database,
  policy: Partial<AdmissionPolicy> & { readonly defaultOrg: string },
): Promise<FleetUnderTest> {
  const instanceId = `instance-${randomUUID()}`;
  await insertInstance(database, instanceId, 3_600_000);
  const bus = createMemoryBus(() => {});
  const clock = systemClock;
  const wall = createWallClock(clock);
  const presence = createPresence({
    ...{ database, bus, clock, wall, instanceId },
    ...{ version: '0.0.0', sessionTimeoutMs: 60_000, logError: () => {} },
  });
  const whole: AdmissionPolicy = {
    ...{ enrollment: 'approval', keyChange: 'quarantine', sessionTimeoutMs: 60_000 },
    ...policy,
  };
  const { defaultOrg } = policy;
  const refusals: Refusal[] = [];
  const noteRefusal = (refusal: Refusal) => void refusals.push(refusal);
  const admissions = createAdmissions({ database, wall, policy: whole, instanceId, presence, noteRefusal });
  const registration = createRegistration({ database, wall, policy: whole, signatures: nativeCrypto, noteRefusal });
  const fleet = createFleet({ database, bus, clock: systemClock, logError: () => {}, defaultOrg });
  const tokens = createEnrollmentTokens({ database, defaultOrg });

  return {
    admissions,
    fleet,
    tokens,
    refusals,
    v1: (name, given) => admissions.admit(v1Agent(name, given)).catch(codeOf),
    v2: (name, given) => admissions.admitV2(v2Agent(name, given)).catch(codeOf),
    beginOverHttp: (hostId, publicKey) => registration.begin({ hostId, publicKey }),
    async registerOverHttp(name, key = nativeCrypto.generateSigningKey()) {
      const { registrationId, nonce, serverTime } = await registration.begin({
        hostId: name,
        publicKey: Buffer.from(key.publicKey).toString('base64'),
      });
      const signed = Buffer.concat([Buffer.from(nonce, 'base64'), Buffer.from(serverTime + name)]);
      const signature = Buffer.from(key.sign(signed)).toString('base64');
      try {
        await registration.complete({ registrationId, hostId: name, signature, remoteAddress: null });
        return null;
      } catch (error) {
        return codeOf(error);
      }
    },
    async token(given = {}) {
      return (await tokens.create(everything, { orgId: defaultOrg, expiresInSeconds: 60, ...given })).secret;
    },
  };
}

export function v1Agent(name: string, given: Partial<AuthenticatedV1Agent> = {}): AuthenticatedV1Agent {
  return {
    ...{ protocol: 'v1', dialect: 'enveloped', name, headerRef: name, uid: null, bootstrapToken: null },
    ...{ publicKey: newKey(), remoteAddress: null, attemptId: randomUUID() },
    nonce: createHash('sha256').update(randomUUID()).digest('hex'),
    nonceLifeMs: 60_000,
    ...given,
  };
}

export function v2Agent(name: string, given: Partial<AuthenticatedV2Agent> = {}): AuthenticatedV2Agent {
  return {
    ...{ protocol: 'v2', dialect: null, name, orgId: null, enroll: null },
    ...{ publicKey: newKey(), remoteAddress: null },
    ...given,
  };
}

/** `enroll` with nothing but a token. */
export function enrollWith(token: string | null): V2Enrollment {
  return {
    ...{ token, hostId: 'a-host', agentVersion: null, machineIdHash: null },
    ...{ platform: undefined, network: undefined, capabilities: undefined },
  };
}

function codeOf(error: unknown): string {
  if (error instanceof AegisError) return error.code;
  throw error;
}

/** The admission. Throws where it was refused. */
export function letIn(outcome: Admission | string): Admission {
  if (typeof outcome === 'string') throw new Error(`refused: ${outcome}`);
  return outcome;
}
