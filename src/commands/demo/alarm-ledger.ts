import type {
  AnomaliesSubscription,
  ProcessesSubscription,
  ThreatsSubscription,
} from '../../consumer-client/client.ts';
import type { AlarmKind, SentAlarm } from './demo-fleet.ts';

/** An alarm as a console was given it. */
export type SeenAlarm =
  | ({ readonly kindSeen: 'anomalies' } & AnomaliesSubscription['anomalies'])
  | ({ readonly kindSeen: 'threats' } & ThreatsSubscription['threats'])
  | ({ readonly kindSeen: 'processes' } & ProcessesSubscription['processes']);

/** Holds what agents wrote against what consoles saw: each alarm once, and saying the same. */
export interface AlarmLedger {
  sent(alarm: SentAlarm): void;
  seen(alarm: SeenAlarm): void;
  /** Alarms of a kind that were sent and seen. */
  matched(kind: AlarmKind): number;
  readonly matchedSealed: number;
  /** Sent and not seen, or seen and not known to be sent, so far. */
  readonly open: number;
  /** Alarms that were seen twice or did not say what was sent; the first 100. */
  readonly faults: readonly string[];
}

/** The fields that GraphQL types, where the agents' telemetry has them. */
const typedFields: Readonly<Record<AlarmKind, readonly string[]>> = {
  anomalies: ['type', 'message'],
  threats: ['type', 'description', 'source', 'response'],
  processes: ['action', 'pid', 'name', 'path', 'user'],
};

/** Either side may come first: an agent learns that its frame was written when a console may have it already. */
export function createAlarmLedger(): AlarmLedger {
  const sentOnly = new Map<string, SentAlarm>();
  const seenOnly = new Map<string, SeenAlarm>();
  const matched: Record<AlarmKind, number> = { anomalies: 0, threats: 0, processes: 0 };
  const faults: string[] = [];
  let matchedSealed = 0;

  function tell(alarm: SentAlarm | SeenAlarm, fault: string): void {
    if (faults.length < keptFaults) faults.push(`message ${alarm.messageId} of ${alarm.agentId}: ${fault}`);
  }

  function match(sent: SentAlarm, seen: SeenAlarm): void {
    matched[sent.kind] += 1;
    if (sent.sealed) matchedSealed += 1;
    const fault = faultIn(sent, seen);
    if (fault !== null) tell(sent, fault);
  }

  return {
    sent(alarm) {
      const key = keyOf(alarm);
      const seen = seenOnly.get(key);
      if (!seen) return void sentOnly.set(key, alarm);
      seenOnly.delete(key);
      match(alarm, seen);
    },
    seen(alarm) {
      const key = keyOf(alarm);
      const sent = sentOnly.get(key);
      if (sent) {
        sentOnly.delete(key);
        match(sent, alarm);
      } else {
        if (seenOnly.has(key)) tell(alarm, 'seen twice');
        seenOnly.set(key, alarm);
      }
    },
    matched: (kind) => matched[kind],
    get matchedSealed() {
      return matchedSealed;
    },
    get open() {
      return sentOnly.size + seenOnly.size;
    },
    faults,
  };
}

const keptFaults = 100;

function faultIn(sent: SentAlarm, seen: SeenAlarm): string | null {
  if (seen.kindSeen !== sent.kind) return `seen as ${seen.kindSeen}`;
  if (!seen.trusted) return 'not trusted';
  if (seen.sealed !== sent.sealed) return seen.sealed ? 'sealed, though it was not' : 'not sealed, though it was';
  if (sent.sealed) return seen.payload === null ? null : 'has a payload that nobody could open';
  const said: Readonly<Record<string, unknown>> = typeof sent.body === 'object' ? { ...sent.body } : {};
  const shown: Readonly<Record<string, unknown>> = { ...seen };
  const differing = typedFields[sent.kind].find((field) => shown[field] !== said[field]);
  if (differing !== undefined) return `\`${differing}\` is ${shown[differing]} and was ${said[differing]}`;
  return 'severity' in seen && seen.severity === 'UNKNOWN' ? 'its severity was not understood' : null;
}

function keyOf({ agentId, messageId }: { readonly agentId: string; readonly messageId: string }): string {
  return `${agentId} ${messageId}`;
}
