import type { Severity } from './event.ts';
import { severityOf } from './severity.ts';

/**
 * The typed fields of events, read from payloads. Agents leave fields out and write others in types of their own, so what is
 * missing or cannot be understood is null; nothing here throws, whatever the payload.
 */

export interface AnomalyFields {
  readonly type: string | null;
  readonly message: string | null;
}

export interface ThreatIndicator {
  readonly type: string | null;
  readonly value: string | null;
  readonly confidence: number | null;
  readonly severity: Severity;
  readonly source: string | null;
}

export interface ThreatFields {
  readonly type: string | null;
  readonly description: string | null;
  readonly source: string | null;
  readonly indicators: readonly ThreatIndicator[];
  readonly response: string | null;
}

export interface ProcessFields {
  readonly action: string | null;
  readonly pid: number | null;
  readonly name: string | null;
  readonly path: string | null;
  readonly user: string | null;
}

export function anomalyFields(payload: unknown): AnomalyFields {
  return { type: textAt(payload, 'type'), message: textAt(payload, 'message') };
}

export function threatFields(payload: unknown): ThreatFields {
  return {
    type: textAt(payload, 'type'),
    description: textAt(payload, 'description'),
    source: textAt(payload, 'source'),
    indicators: indicatorsOf(valueAt(payload, 'indicators')),
    response: textAt(payload, 'response'),
  };
}

export function processFields(payload: unknown): ProcessFields {
  return {
    action: textAt(payload, 'action'),
    pid: int32(numberAt(payload, 'pid')),
    name: textAt(payload, 'name'),
    path: textAt(payload, 'path'),
    user: textAt(payload, 'user'),
  };
}

function indicatorsOf(list: unknown): ThreatIndicator[] {
  if (!Array.isArray(list)) return [];
  return list.filter((entry) => entry !== null).map(indicatorOf);
}

/** An indicator that is no object is its own value: `"203.0.113.7"`. */
function indicatorOf(entry: unknown): ThreatIndicator {
  return {
    type: textAt(entry, 'type'),
    value: textOf(entry) ?? textAt(entry, 'value'),
    confidence: numberAt(entry, 'confidence'),
    severity: severityOf(valueAt(entry, 'severity')),
    source: textAt(entry, 'source'),
  };
}

function valueAt(container: unknown, key: string): unknown {
  if (typeof container !== 'object' || container === null || !Object.hasOwn(container, key)) return null;
  return Object.getOwnPropertyDescriptor(container, key)?.value;
}

function textAt(container: unknown, key: string): string | null {
  return textOf(valueAt(container, key));
}

/** Text as it is, a number in its digits. */
function textOf(value: unknown): string | null {
  if (typeof value === 'string') return value;
  return typeof value === 'number' && Number.isFinite(value) ? String(value) : null;
}

/** A finite number, also where it is written as text: `JSON.parse` makes Infinity of 1e999. */
function numberAt(container: unknown, key: string): number | null {
  const value = valueAt(container, key);
  const number = typeof value === 'string' && decimal.test(value) ? Number(value) : value;
  return typeof number === 'number' && Number.isFinite(number) ? number : null;
}

const decimal = /^\s*-?\d{1,30}(\.\d{1,30})?([eE][+-]?\d{1,3})?\s*$/;

/** What GraphQL's Int can carry, else null. */
function int32(value: number | null): number | null {
  return value !== null && Number.isInteger(value) && value === (value | 0) ? value | 0 : null;
}
