import { groupBy } from '../../src/group-by.ts';
import type { Invariant, StoredEvent, StreamSeen } from './history.ts';

export const eventInvariants: Readonly<Record<string, Invariant>> = {
  'what was shown is stored, in that place': ({ streams, stored }) => {
    const byCursor = new Map(stored.events.map((event) => [event.cursor, event]));
    return streams.flatMap(({ name, events }) =>
      events.flatMap(({ cursor, agent, messageId }) => {
        const event = byCursor.get(cursor);
        if (event?.agent === agent && event.messageId === messageId) return [];
        return [`${name} was shown ${messageId} of ${agent} at ${cursor}; there is ${event?.messageId ?? 'nothing'}`];
      }),
    );
  },

  'an event is stored once': ({ stored }) =>
    [...groupBy(stored.events, ({ agent, messageId }) => `${messageId} of ${agent}`)].flatMap(([id, events]) =>
      events.length > 1 ? [`${id} at ${events.map(({ position }) => position).join(', ')}`] : [],
    ),

  'what was acknowledged is stored': ({ acknowledged, stored }) => {
    const ids = new Set(stored.events.map(({ agent, messageId }) => `${messageId} of ${agent}`));
    return acknowledged.map(({ agent, messageId }) => `${messageId} of ${agent}`).filter((id) => !ids.has(id));
  },

  'nothing is stored but what an agent reported': ({ reports, stored }) => {
    const written = new Map(reports.map((report) => [`${report.messageId} of ${report.agent}`, report]));
    return stored.events.flatMap(({ agent, messageId, kind, number }) => {
      const id = `${messageId} of ${agent}`;
      const report = written.get(id);
      // Deployed agents' heartbeats are stored as well, and not in their journals.
      if (report ? report.kind === kind && report.number === number : kind === 'heartbeat') return [];
      return [report ? `${id} says ${kind} ${number} instead of ${report.kind} ${report.number}` : `${id} (${kind})`];
    });
  },

  'positions are dense up to the head': ({ stored: { events, head } }) => {
    const holes = events.flatMap(({ position }, index) => {
      const expected = index + 1;
      return position === expected ? [] : [`position ${position} stands where ${expected} should`];
    });
    return [
      ...holes.slice(0, 1),
      ...((events.at(-1)?.position ?? 0) === head
        ? []
        : [`the head is ${head}, the last position ${events.at(-1)?.position}`]),
    ];
  },

  "an agent's events keep the order of each link": ({ reports, stored }) => {
    const place = new Map(
      reports.map(({ agent, messageId, link, isRepeated }, index) => [
        `${agent} ${messageId}`,
        { link, index, isRepeated },
      ]),
    );
    const latest = new Map<string, number>();
    return stored.events.flatMap(({ agent, messageId }) => {
      const written = place.get(`${agent} ${messageId}`);
      if (!written) return [];
      const link = `${agent} ${written.link}`;
      const before = latest.get(link) ?? -1;
      if (!written.isRepeated) latest.set(link, Math.max(before, written.index));
      return written.index < before ? [`${messageId} of ${agent} comes after a later one of its link`] : [];
    });
  },

  'a subscriber is shown events in order, each once': ({ streams, stored }) => {
    const positions = positionsOf(stored.events);
    return streams.flatMap(({ name, from, events }) => {
      let last = positions.get(from) ?? 0;
      return events.flatMap(({ cursor, messageId }) => {
        const position = positions.get(cursor);
        if (position === undefined) return [];
        const isLater = position > last;
        last = Math.max(last, position);
        return isLater ? [] : [`${name} was shown ${messageId} at ${position} again, or late`];
      });
    });
  },

  'a subscriber is shown events, no gap and no end': ({ streams }) =>
    streams.flatMap(({ name, faults }) => faults.map((fault) => `${name}: ${fault}`)),
};

export const eventsAtRest: Readonly<Record<string, Invariant>> = {
  'what is stored was shown to every subscriber': ({ streams, stored }) =>
    streams.flatMap((stream) => {
      const shown = new Set(stream.events.map(({ cursor }) => cursor));
      return wantedBy(stream, stored.events)
        .filter(({ cursor }) => !shown.has(cursor))
        .map(({ position, messageId, agent }) => `${stream.name} missed ${messageId} of ${agent} at ${position}`);
    }),
};

/** What a subscriber asked for. */
export function wantedBy({ from, kinds }: StreamSeen, events: readonly StoredEvent[]): readonly StoredEvent[] {
  const begin = positionsOf(events).get(from) ?? 0;
  return events.filter(({ position, kind }) => position > begin && (kinds === null || kinds.includes(kind)));
}

function positionsOf(events: readonly StoredEvent[]): ReadonlyMap<string, number> {
  return new Map(events.map(({ cursor, position }) => [cursor, position]));
}
