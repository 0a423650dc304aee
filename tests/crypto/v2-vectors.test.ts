import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import type { CryptoSuite } from '../../src/agent-gateway/crypto/suite.ts';
import { V2Initiator } from '../../src/agent-gateway/crypto/v2-initiator.ts';
import { verifyRotation } from '../../src/agent-gateway/crypto/v2-key-rotation.ts';
import { V2Responder } from '../../src/agent-gateway/crypto/v2-responder.ts';
import type { V2Session } from '../../src/agent-gateway/crypto/v2-session.ts';
import { utf8 } from '../../src/agent-gateway/wire/bytes.ts';
import { decodeIdentity } from '../../src/agent-gateway/wire/v2-identity.ts';
import { decodeBatch } from '../../src/agent-gateway/wire/v2-message.ts';
import {
  decodeKeyRotation,
  decodeSessionGrant,
  sessionOperation,
} from '../../src/agent-gateway/wire/v2-session-channel.ts';
import { hex, toHex } from './bytes.ts';
import { sound } from './v2-impostors.ts';
import { suites, taken } from './v2-parties.ts';

/** Holds both sides, on both suites, to tests/vectors/aegis-v2.json, which is computed by the formulas alone. */

const inputs = z.object({
  ...{ agent_seed: z.string(), gateway_seed: z.string(), kid: z.string() },
  ...{ agent_ephemeral_private: z.string(), gateway_ephemeral_private: z.string() },
  ...{ agent_nonce: z.string(), gateway_nonce: z.string(), sid: z.string() },
  ...{ deployment_id: z.string(), exporter: z.string().nullable(), caps: z.array(z.string()), identity: z.string() },
});
const vectors = z
  .object({
    cases: z.array(
      z.object({
        ...{ name: z.string(), inputs, steps: z.object({ h4: z.string() }) },
        frames: z.object({ m1: z.string(), m2: z.string(), m3: z.string() }),
        records: z.array(
          z.object({ direction: z.enum(['c2s', 's2c']), generation: z.number(), json: z.string(), frame: z.string() }),
        ),
      }),
    ),
    failures: z.array(
      z.object({
        ...{ name: z.string(), receiver: z.enum(['agent', 'gateway']) },
        instead: z
          .object({ pins: z.array(z.string()), deployment_id: z.string(), binding: z.literal('required') })
          .partial()
          .default({}),
        ...{ m1: z.string().optional(), m2: z.string().optional(), m3: z.string().optional() },
        records: z.array(z.string()).default([]),
      }),
    ),
  })
  .parse(JSON.parse(readFileSync(new URL('../vectors/aegis-v2.json', import.meta.url), 'utf8')));

type Instead = (typeof vectors)['failures'][number]['instead'];

function sides(suite: CryptoSuite, given: z.infer<typeof inputs>, instead: Instead = {}) {
  const exporter = given.exporter === null ? null : hex(given.exporter);
  const agent = new V2Initiator({
    ...{ suite, signingKey: suite.signingKeyFromSeed(hex(given.agent_seed)), exporter, caps: given.caps },
    identity: sound(decodeIdentity(utf8(given.identity))),
    pins: instead.pins ?? [given.kid],
    deploymentId: instead.deployment_id ?? given.deployment_id,
    randomness: { ephemeral: hex(given.agent_ephemeral_private), nonce: hex(given.agent_nonce) },
  });
  const gateway = new V2Responder({
    ...{ suite, signingKey: suite.signingKeyFromSeed(hex(given.gateway_seed)), caps: given.caps },
    ...{ deploymentId: given.deployment_id, channelBinding: { policy: instead.binding ?? 'off', exporter } },
    randomness: {
      ...{
        ephemeral: hex(given.gateway_ephemeral_private),
        nonce: hex(given.gateway_nonce),
        sessionId: hex(given.sid),
      },
    },
  });
  return { agent, gateway };
}

/** What stands on the session channel must be readable, and a rotation must be signed. */
function checkSessionPayloads(suite: CryptoSuite, json: string, ofGateway: V2Session): void {
  for (const { payload } of sound(decodeBatch(utf8(json), 256))) {
    const operation = sessionOperation(payload);
    if (operation === 'session') expect(decodeSessionGrant(payload).ok).toBe(true);
    if (operation === 'rotate') expect(verifyRotation(suite, ofGateway, sound(decodeKeyRotation(payload)))).toBe(true);
  }
}

describe.each(suites)('the published vectors on $name', ({ suite }) => {
  it.each(vectors.cases)('are the frames of the case: $name', (vector) => {
    const { agent, gateway } = sides(suite, vector.inputs);
    expect(agent.m1).toBe(vector.frames.m1);
    const m2 = taken(gateway.takeM1(vector.frames.m1));
    expect(m2).toBe(vector.frames.m2);
    const { m3, session: ofAgent } = taken(agent.takeM2(m2));
    expect(m3).toBe(vector.frames.m3);
    const { session: ofGateway } = taken(gateway.takeM3(m3));
    expect(toHex(ofAgent.transcriptHash)).toBe(vector.steps.h4);
    expect(toHex(ofGateway.transcriptHash)).toBe(vector.steps.h4);

    for (const { direction, generation, json, frame } of vector.records) {
      const [from, to] = direction === 'c2s' ? [ofAgent, ofGateway] : [ofGateway, ofAgent];
      while (from.sealer.generation < generation) from.sealer.rekey();
      expect(toHex(from.sealer.seal(utf8(json)))).toBe(frame);
      const record = to.opener.open(hex(frame));
      expect(record.ok && Buffer.from(record.json).toString()).toBe(json);
      checkSessionPayloads(suite, json, ofGateway);
    }
  });

  it.each(vectors.failures)('are refused where they must be: $name', ({ receiver, instead, m1, m2, m3, records }) => {
    const [plain] = vectors.cases;
    if (!plain) throw new Error('no case');
    const { agent, gateway } = sides(suite, plain.inputs, instead);
    if (receiver === 'agent') return expect(agent.takeM2(m2 ?? '').ok).toBe(false);
    const afterM1 = gateway.takeM1(m1 ?? plain.frames.m1);
    if (m1) return expect(afterM1.ok).toBe(false);
    const afterM3 = gateway.takeM3(m3 ?? plain.frames.m3);
    if (m3) return expect(afterM3.ok).toBe(false);
    const { opener } = taken(afterM3).session;
    expect(records.map((frame) => opener.open(hex(frame)).ok)).toEqual(
      records.map((_, index) => index < records.length - 1),
    );
  });
});
