import { z } from 'zod';
import { type EventKind, eventKinds, type StoredEvent, severities, severityRank } from './event.ts';

/**
 * Stored events as gateways tell them to each other: JSON of few words, in which payloads are the texts that agents sent. What
 * is not exactly of this form, another version's among it, is not read: it is in the store.
 */
const form = 1;

/** The most that a gateway stores in one group, with room for versions that store more. */
const maxEvents = 5_000;

const kindNames: ReadonlySet<string> = new Set(eventKinds);
const timeMs = z.int().min(-8.64e15).max(8.64e15);

const eventForm = z.object({
  k: z.custom<EventKind>((value) => typeof value === 'string' && kindNames.has(value)),
  id: z.string(),
  uid: z.string(),
  name: z.string(),
  org: z.string(),
  at: timeMs,
  /** Absent for an event that is not trusted. */
  ok: z.literal(1).optional(),
  /** Absent for an event that is not sealed. */
  shut: z.literal(1).optional(),
  sev: z
    .int()
    .min(0)
    .max(severities.length - 1),
  re: z.string().optional(),
  body: z.unknown(),
});

const groupForm = z.object({
  form: z.literal(form),
  /** Of the first event; the others follow one by one. */
  position: z.int().min(1),
  receivedAt: timeMs,
  events: z.array(eventForm).min(1).max(maxEvents),
});
const groupsForm = z.array(groupForm);

/** The text of a group. `payloadTexts` has the JSON of each event's payload, null where it is sealed. */
export function groupText(events: readonly StoredEvent[], payloadTexts: readonly (string | null)[]): string {
  const [first] = events;
  if (!first) return '';
  const texts = events.map((event, index) => {
    const head = JSON.stringify({
      k: event.kind,
      id: event.messageId,
      uid: event.agentUid,
      name: event.agentName,
      org: event.orgId,
      at: event.occurredAt.getTime(),
      ok: event.trusted ? 1 : undefined,
      shut: event.sealed ? 1 : undefined,
      sev: severityRank(event.severity),
      re: event.replyTo ?? undefined,
    });
    return `${head.slice(0, -1)},"body":${payloadTexts[index] ?? 'null'}}`;
  });
  return `{"form":${form},"position":${first.position},"receivedAt":${first.receivedAt.getTime()},"events":[${texts.join(',')}]}`;
}

/** The groups in a JSON array of their texts; null for anything else. */
export function readGroups(text: string): readonly (readonly StoredEvent[])[] | null {
  const groups = groupsForm.safeParse(jsonOrNull(text)).data;
  return (
    groups?.map(({ position, receivedAt, events }) => {
      const at = new Date(receivedAt);
      return events.map(
        (event, index): StoredEvent => ({
          position: position + index,
          kind: event.k,
          orgId: event.org,
          agentUid: event.uid,
          agentName: event.name,
          messageId: event.id,
          occurredAt: new Date(event.at),
          receivedAt: at,
          trusted: event.ok === 1,
          sealed: event.shut === 1,
          severity: severities[event.sev] ?? 'unknown',
          replyTo: event.re ?? null,
          payload: event.body,
        }),
      );
    }) ?? null
  );
}

function jsonOrNull(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
