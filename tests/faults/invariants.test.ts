import { describe, expect, it } from 'vitest';
import { encodeCursor } from '../../src/paging.ts';
import type {
  CommandRead,
  History,
  OwnerSeen,
  Report,
  Send,
  StatusSeen,
  Stored,
  StoredEvent,
  StoredMessage,
  StreamSeen,
} from './history.ts';
import { always, atRest, violationsIn } from './invariants.ts';

const agent = 'calm-1.example';

function send(id: string, more: Partial<Send> = {}): Send {
  const answers = [{ messageId: id, answeredAtMs: 110 }];
  return { key: `key of ${id}`, agent, priority: 'normal', askedAtMs: 100, answers, ...more };
}

function message(id: string, more: Partial<StoredMessage> = {}): StoredMessage {
  return {
    ...{ id, agent, status: 'delivered', priority: 'normal', attempts: 1, maxRetries: 3, expiresAtMs: 9_000 },
    ...{ key: `key of ${id}`, broadcastId: null, failure: null },
    ...more,
  };
}

function read(messageId: string, more: Partial<CommandRead> = {}): CommandRead {
  return { agent, messageId, link: 1, readAtMs: 200, ...more };
}

function seen(messageId: string, more: Partial<StatusSeen> = {}): StatusSeen {
  return { messageId, status: 'delivered', source: 'query', askedAtMs: 300, toldAtMs: 310, ...more };
}

/** What one connection told of m1. */
function updates(...told: readonly StatusSeen['status'][]): StatusSeen[] {
  return told.map((status, index) => seen('m1', { status, source: 'updates', askedAtMs: 1, toldAtMs: 300 + index }));
}

function event(position: number, more: Partial<StoredEvent> = {}): StoredEvent {
  const cursor = encodeCursor('event', position);
  return { position, cursor, agent, messageId: `e${position}`, kind: 'logs', number: position, ...more };
}

function report(number: number, more: Partial<Report> = {}): Report {
  const written = { link: 1, writtenAtMs: 50 + number, isRepeated: false };
  return { agent, messageId: `e${number}`, kind: 'logs', number, ...written, ...more };
}

function stream(positions: readonly number[], more: Partial<StreamSeen> = {}): StreamSeen {
  const events = positions.map((position) => {
    const { cursor, messageId } = event(position);
    return { cursor, agent, messageId };
  });
  return { name: 'a subscriber', from: encodeCursor('event', 0), kinds: null, events, faults: [], ...more };
}

function owner(epoch: number, more: Partial<OwnerSeen> = {}): OwnerSeen {
  return { agent, epoch, instance: 'gateway', session: `link ${epoch}`, ...more };
}

/** Nothing is wrong in it: messages m1 and m2 were read, events 1 to 3 shown. */
const sound: History = {
  sends: [send('m1'), send('m2', { askedAtMs: 120, answers: [{ messageId: 'm2', answeredAtMs: 130 }] })],
  broadcasts: [],
  cancelled: [],
  reads: [read('m1'), read('m2', { readAtMs: 210 })],
  statuses: [seen('m1', { status: 'sent', askedAtMs: 180, toldAtMs: 190 }), seen('m1')],
  reports: [report(1), report(2), report(3)],
  holds: [],
  applied: [{ agent, messageId: 'm1' }],
  acknowledged: [{ agent, messageId: 'e1' }],
  refusals: [],
  streams: [stream([1, 2, 3])],
  owners: [owner(1), owner(2)],
  stored: {
    readAtMs: 1_000,
    messages: [message('m1'), message('m2')],
    events: [event(1), event(2), event(3)],
    head: 3,
  },
};

function withStored(stored: Partial<Stored>): Partial<History> {
  return { stored: { ...sound.stored, ...stored } };
}

/** For each invariant histories in which it is broken, and no other one is. */
const broken: Readonly<Record<string, Readonly<Record<string, Partial<History>>>>> = {
  'what was accepted is stored': {
    'a message that was accepted and is gone': { sends: [...sound.sends, send('m3')] },
    'a message that went to another agent': { sends: [send('m1', { agent: 'calm-2.example' })] },
    'a message with another priority': { sends: [send('m1', { priority: 'urgent' })] },
  },
  'a key makes one message': {
    'two answers with different messages': {
      sends: [send('m1', { answers: ['m1', 'm3'].map((messageId) => ({ messageId, answeredAtMs: 110 })) })],
      ...withStored({
        messages: [
          message('m1'),
          message('m2'),
          message('m3', { key: 'key of m1', status: 'cancelled', failure: 'taken back' }),
        ],
      }),
    },
    'two messages and one answer': {
      sends: [send('m1')],
      ...withStored({ messages: [message('m1'), message('m2', { key: 'key of m1' })] }),
    },
  },
  'a broadcast is stored whole and once': {
    'a message that is missing': {
      broadcasts: [{ key: 'to all', answers: [{ broadcastId: 'b1', targets: 2 }] }],
      ...withStored({ messages: [message('m1', { broadcastId: 'b1' }), message('m2')] }),
    },
    'a broadcast that was made twice': {
      broadcasts: [{ key: 'to all', answers: ['b1', 'b2'].map((broadcastId) => ({ broadcastId, targets: 1 })) }],
      ...withStored({ messages: [message('m1', { broadcastId: 'b1' }), message('m2', { broadcastId: 'b2' })] }),
    },
  },
  'what is delivered was read by its agent': {
    'a delivered message that nobody read': { reads: [read('m1')] },
  },
  'an agent of v2 carries a command out once': {
    'a command that was carried out twice': { applied: [...sound.applied, ...sound.applied] },
  },
  'nothing is read but what is stored for that agent': {
    'a command that came from nowhere': { reads: [...sound.reads, read('m9', { readAtMs: 900 })] },
    "another agent's command": {
      reads: [...sound.reads, read('m1', { agent: 'calm-2.example' })],
      ...withStored({ messages: [message('m1', { attempts: 2 }), message('m2')] }),
    },
  },
  'nothing is read after its time': {
    'a command that is read late': { reads: [read('m1'), read('m2', { readAtMs: 10_100 })] },
    'a command three seconds later than the network held it': {
      reads: [read('m1'), read('m2', { readAtMs: 15_000 })],
      holds: [{ fromMs: 8_000, untilMs: 12_000 }],
    },
  },
  'nothing is sent more often than it may be': {
    'an attempt too many': withStored({ messages: [message('m1'), message('m2', { attempts: 5 })] }),
    'a frame written twice in one attempt': { reads: [...sound.reads, read('m2')] },
  },
  'an agent reads in order what has the same priority': {
    'a command that overtakes': { reads: [read('m2'), read('m1')] },
  },
  'a final state stays': {
    'delivered, and then asked for: queued': {
      statuses: [seen('m1'), seen('m1', { status: 'pending', askedAtMs: 320, toldAtMs: 330 })],
    },
    'expired, and delivered in the database': { statuses: [seen('m1', { status: 'expired' })] },
    'two final states from two connections': {
      statuses: [seen('m1'), seen('m1', { source: 'updates', status: 'failed', askedAtMs: 1 })],
    },
  },
  'updates tell every change of status once, in order': {
    'delivered and then sent': { statuses: updates('delivered', 'sent') },
    'a change that is left out': { statuses: updates('pending', 'delivered') },
    'a change that is told twice': { statuses: updates('pending', 'sent', 'sent', 'delivered') },
  },
  'what was taken back is cancelled': {
    'a cancelled message that was delivered': { cancelled: ['m1'] },
  },
  'what is final and not delivered says why': {
    'a failure without a reason': withStored({ messages: [message('m1'), message('m2', { status: 'failed' })] }),
  },
  'what was accepted is final': {
    'a message that is still on its way': withStored({ messages: [message('m1'), message('m2', { status: 'sent' })] }),
  },
  'what was shown is stored, in that place': {
    'an event that was shown and is gone': {
      streams: [stream([1, 2, 3, 4])],
    },
    'another event in its place': {
      reports: [report(1), report(2), report(4)],
      ...withStored({ events: [event(1), event(2), event(3, { messageId: 'e4', number: 4 })] }),
    },
  },
  'an event is stored once': {
    'an event that is stored twice': {
      streams: [stream([1, 2, 3], { kinds: [] })],
      ...withStored({ events: [event(1), event(2), event(3), event(4, { messageId: 'e3', number: 3 })], head: 4 }),
    },
  },
  'what was acknowledged is stored': {
    'a report that was acknowledged and is not there': { acknowledged: [{ agent, messageId: 'e4' }] },
  },
  'nothing is stored but what an agent reported': {
    'an event from nowhere': { reports: [report(1), report(2)] },
    'an event that says something else': { reports: [report(1), report(2), report(3, { number: 7 })] },
  },
  'positions are dense up to the head': {
    'a hole': { streams: [stream([1, 3])], ...withStored({ events: [event(1), event(3)] }) },
    'a head that has run ahead': withStored({ head: 4 }),
    'a head that stayed behind': withStored({ head: 2 }),
  },
  "an agent's events keep the order of each link": {
    'a later event that was stored earlier': { reports: [report(1), report(3), report(2)] },
  },
  'a subscriber is shown events in order, each once': {
    'an event shown twice': { streams: [stream([1, 2, 2, 3])] },
    'an event shown late': { streams: [stream([1, 3, 2])] },
  },
  'a subscriber is shown events, no gap and no end': {
    'a gap': { streams: [stream([1, 2, 3], { faults: ['a gap'] })] },
  },
  'what is stored was shown to every subscriber': {
    'an event that was left out': { streams: [stream([1, 3])] },
    'the last event': { streams: [stream([1, 2])] },
    'an event of the only kind asked for': { streams: [stream([1, 2], { kinds: ['logs'] })] },
  },
  'an agent that dials is let in': {
    'an agent that was refused': { refusals: ['AUTH_NONCE_REUSED'] },
  },
  'an epoch has one owner and never falls': {
    'two links with one epoch': { owners: [owner(2), owner(2, { session: 'another link' })] },
    'one epoch in two gateways': { owners: [owner(2), owner(2, { instance: 'another gateway' })] },
    'an older link that is the owner again': { owners: [owner(2), owner(1)] },
  },
};

/** Histories in which nothing is wrong, although it might seem so. */
const harmless: Readonly<Record<string, Partial<History>>> = {
  'a message that was read twice, over two attempts': {
    reads: [...sound.reads, read('m1', { link: 2 })],
    ...withStored({ messages: [message('m1', { attempts: 2 }), message('m2')] }),
  },
  'a broadcast that was asked for twice': {
    broadcasts: [{ key: 'to all', answers: ['b1', 'b1'].map((broadcastId) => ({ broadcastId, targets: 2 })) }],
    ...withStored({ messages: [message('m1', { broadcastId: 'b1' }), message('m2', { broadcastId: 'b1' })] }),
  },
  'commands asked for at the same time, read in either order': {
    sends: [send('m1', { answers: [{ messageId: 'm1', answeredAtMs: 125 }] }), sound.sends[1] ?? send('m2')],
    reads: [read('m2'), read('m1')],
  },
  'an urgent command that overtakes': {
    sends: [send('m1'), send('m2', { askedAtMs: 120, priority: 'urgent' })],
    reads: [read('m2'), read('m1')],
    ...withStored({ messages: [message('m1'), message('m2', { priority: 'urgent' })] }),
  },
  'a command that was read after the database was': { reads: [...sound.reads, read('m9', { readAtMs: 1_100 })] },
  'a command that the network held while its time ran out': {
    reads: [read('m1'), read('m2', { readAtMs: 12_100 })],
    holds: [{ fromMs: 8_000, untilMs: 12_000 }],
  },
  'a push that was on its way while somebody asked': {
    statuses: [seen('m1'), seen('m1', { source: 'updates', status: 'sent', askedAtMs: 1, toldAtMs: 320 })],
  },
  'a retry, and the end that came of it': { statuses: updates('pending', 'sent', 'pending', 'sent', 'delivered') },
  'an answer to a question from before the end': {
    statuses: [seen('m1'), seen('m1', { status: 'sent', askedAtMs: 305, toldAtMs: 330 })],
  },
  'a heartbeat, which is in no journal': {
    streams: [stream([1, 2, 3, 4])],
    ...withStored({ events: [...sound.stored.events, event(4, { kind: 'heartbeat', number: null })], head: 4 }),
  },
  'the rest of a slow connection, behind what was repeated over the next one': {
    reports: [report(2), report(3), report(1, { isRepeated: true })],
  },
  'an event that was written to a dead socket': { reports: [...sound.reports, report(4)] },
  'a subscriber that began later': { streams: [stream([3], { from: encodeCursor('event', 2) })] },
};

function brokenIn(changes: Partial<History>): string[] {
  const violations = violationsIn({ ...sound, ...changes }, { isAtRest: true });
  return [...new Set(violations.map(({ invariant }) => invariant))];
}

describe('the invariants', () => {
  it('are each broken below', () => {
    expect(Object.keys(broken).sort()).toEqual(Object.keys({ ...always, ...atRest }).sort());
  });

  it('hold in a sound history', () => {
    expect(violationsIn(sound, { isAtRest: true })).toEqual([]);
  });

  it.each(Object.entries(harmless))('hold where there is %s', (_name, changes) => {
    expect(brokenIn(changes)).toEqual([]);
  });

  describe.each(Object.entries(broken))('%s', (invariant, histories) => {
    it.each(Object.entries(histories))('is broken by %s', (_name, changes) => {
      expect(brokenIn(changes)).toEqual([invariant]);
    });
  });

  it('asks for an end of everything only once all is at rest', () => {
    const early = { ...sound, ...withStored({ messages: [message('m1'), message('m2', { status: 'sent' })] }) };
    expect(violationsIn(early, { isAtRest: false })).toEqual([]);
  });
});
