import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import { createTelemetry, type Report } from '../../src/agent-client/index.ts';
import { seededRandom } from '../../src/agent-client/seeded-random.ts';
import { eventKinds } from '../../src/agent-gateway/wire/channels.ts';
import { fromBase64, parseMessage, recordedFrames } from './recordings.ts';

function story(seed: number, length: number): Report[] {
  const telemetry = createTelemetry({ seed, agentId: 'host-head', now: () => 1_795_436_172_000 });
  return Array.from({ length }, () => telemetry.next());
}

const anObject = z.record(z.string(), z.json());

describe('telemetry', () => {
  it('tells the same story for the same seed and another for another', () => {
    expect(story(7, 50)).toEqual(story(7, 50));
    expect(story(7, 50)).not.toEqual(story(8, 50));
  });

  const recorded = recordedFrames('enveloped').filter(
    ({ direction, channel }) => direction === 'in' && /\.(anomalies|threats|processes|status)$/.test(channel ?? ''),
  );

  it.each(recorded)('has every field of what was recorded on $channel', (frame) => {
    const kind = eventKinds.find((name) => frame.channel?.endsWith(`.${name}`)) ?? expect.unreachable();
    const wanted = anObject.parse(JSON.parse(fromBase64(parseMessage(frame).payload).toString()));
    const body = anObject.parse(createTelemetry({ seed: 1, agentId: 'host-head' }).nextOf(kind).body);
    for (const [field, value] of Object.entries(wanted)) expect(typeof body[field], field).toBe(typeof value);
  });

  it('has a body for every kind', () => {
    const telemetry = createTelemetry({ seed: 1, agentId: 'host-head' });
    for (const kind of eventKinds) expect(anObject.safeParse(telemetry.nextOf(kind).body).success).toBe(true);
    expect(telemetry.nextOf('heartbeat').body).toEqual({});
  });

  it('writes severities in varying case and in words of its own', () => {
    const severities = story(3, 2_000)
      .filter(({ kind }) => kind === 'anomalies')
      .map(({ body }) => z.object({ severity: z.string() }).parse(body).severity);
    expect(new Set(severities)).toEqual(
      new Set(['low', 'medium', 'high', 'critical', 'HIGH', 'Critical', 'Medium', 'info', 'warn', 'WARNING', 'error']),
    );
  });

  it('reports processes and anomalies often, and everything else now and then', () => {
    const kinds = story(1, 5_000).map(({ kind }) => kind);
    const shareOf = (wanted: string): number => kinds.filter((kind) => kind === wanted).length / kinds.length;
    expect(shareOf('processes')).toBeGreaterThan(0.35);
    expect(shareOf('anomalies')).toBeGreaterThan(0.2);
    expect(new Set(kinds).size).toBe(eventKinds.length - 1);
  });
});

describe('the seeded random source', () => {
  it('stays within its bounds and reaches both', () => {
    const random = seededRandom(42);
    const drawn = Array.from({ length: 1_000 }, () => random.integer(-2, 2));
    expect(new Set(drawn)).toEqual(new Set([-2, -1, 0, 1, 2]));
  });
});
