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

/** The reports of one agent. `seed` is any integer; `now` is what the agent's clock says, in milliseconds since 1970. */
export function createTelemetry(options: {
  readonly seed: number;
  readonly agentId: string;
  readonly now?: () => number;
}): Telemetry {
  const now = options.now ?? Date.now;
  const random = seededRandom(options.seed);
  let number = 0;
  const nextOf = (kind: EventKind): Report => {
    number += 1;
    return { kind, body: telemetryBodies[kind]({ random, agentId: options.agentId, number, nowMs: now() }) };
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
