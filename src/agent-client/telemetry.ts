/** Believable telemetry: the same seed tells the same story. */
import type { EventKind } from '../agent-gateway/wire/channels.ts';
import type { JsonValue } from './go-json.ts';
import { seededRandom } from './seeded-random.ts';
import { telemetryBodies } from './telemetry-bodies.ts';

export interface Report {
  readonly kind: EventKind;
  readonly body: JsonValue;
}

export interface Telemetry {
  /** The next report, its kind as often as agents send it: processes and anomalies often, rollbacks hardly ever. */
  next(): Report;
  /** The next report of one kind. */
  nextOf(kind: EventKind): Report;
}

/** The reports of one agent. `seed` is any integer. */
export function createTelemetry(options: { readonly seed: number; readonly agentId: string }): Telemetry {
  const random = seededRandom(options.seed);
  let number = 0;
  const nextOf = (kind: EventKind): Report => {
    number += 1;
    return { kind, body: telemetryBodies[kind]({ random, agentId: options.agentId, number }) };
  };
  return { nextOf, next: () => nextOf(random.pickWeighted(kindWeights)) };
}

const kindWeights: readonly [readonly [EventKind, number], ...(readonly [EventKind, number])[]] = [
  ['processes', 40],
  ['anomalies', 25],
  ['threats', 10],
  ['logs', 10],
  ['status', 7],
  ['dependencies', 3],
  ['policies', 2],
  ['tests', 2],
  ['rollbacks', 1],
];
