import { randomUUID } from 'node:crypto';
import { afterEach, describe, expect, it } from 'vitest';
import type { Bus } from '../../src/bus/bus.ts';
import type { StoredEvent, StoredGroup } from '../../src/events/event.ts';
import type { Message } from '../../src/messages/message.ts';
import { eventually } from '../support/eventually.ts';

/** How a test gets a gateway's end of a bus. */
export type OpenBus = (logError: (error: unknown, context: string) => void, instanceId: string) => Promise<Bus>;

const hint = (...agentUids: string[]) => ({ agentUids });

export const message: Message = {
  id: randomUUID(),
  sequence: 7,
  agentUid: randomUUID(),
  agentName: 'host-1',
  orgId: 'default-org',
  kind: 'policies',
  type: 'request',
  priority: 'high',
  status: 'sent',
  payload: { createdAt: '2026-11-23T12:00:00Z', list: [1, null] },
  attempts: 1,
  maxRetries: 3,
  createdAt: new Date(1_795_436_172_000),
  sentAt: new Date(1_795_436_173_000),
  deliveredAt: null,
  expiresAt: new Date(1_795_439_772_000),
  failure: null,
  broadcastId: null,
  traceparent: null,
  revision: 1,
  history: [{ revision: 1, status: 'sent', at: new Date(), attempts: 1, failure: null }],
};

const event: StoredEvent = {
  position: 1,
  kind: 'logs',
  messageId: 'm1',
  agentUid: randomUUID(),
  agentName: 'host-1',
  orgId: 'default-org',
  occurredAt: new Date(1_795_436_172_000),
  receivedAt: new Date(1_795_436_173_000),
  trusted: true,
  sealed: false,
  severity: 'low',
  replyTo: null,
  payload: { list: [1, null] },
};

/** A group of one event at a position, with a text that no one reads here. */
export function group(position: number): StoredGroup {
  return { events: [{ ...event, position }], text: () => JSON.stringify({ group: position, text: '"\\ü🙂' }) };
}

function createStage(open: OpenBus) {
  const errors: string[] = [];
  const buses: Bus[] = [];
  afterEach(async () => {
    for (const bus of buses.splice(0)) await bus.close();
    errors.length = 0;
  });
  return {
    errors,
    async join(instanceId: string = randomUUID()): Promise<Bus> {
      const bus = await open((error, context) => errors.push(`${context}: ${error}`), instanceId);
      buses.push(bus);
      return bus;
    },
  };
}

/** What holds for every bus, whatever carries it. */
export function testBus(name: string, open: OpenBus): void {
  describe(`${name}, within a gateway`, () => {
    const { errors, join } = createStage(open);

    it('calls every listener of the topic, in the order of publishing, right away', async () => {
      const bus = await join();
      const heard: string[] = [];
      bus.subscribe('queued', ({ agentUids }) => heard.push(`one ${agentUids}`));
      bus.subscribe('queued', ({ agentUids }) => heard.push(`two ${agentUids}`));
      bus.subscribe('agents', () => heard.push('another topic'));
      bus.publish('queued', hint('a'));
      bus.publish('queued', hint('b'));
      expect(heard).toEqual(['one a', 'two a', 'one b', 'two b']);
    });

    it('gives messages and events as they are', async () => {
      const bus = await join();
      const heard: unknown[] = [];
      bus.subscribe('messages', (messages) => heard.push(messages[0]));
      bus.publish('messages', [message]);
      expect(heard[0]).toBe(message);
    });

    it('lets no listener that throws hurt the others or the publisher', async () => {
      const bus = await join();
      let heard = 0;
      bus.subscribe('queued', () => {
        throw new Error('broken');
      });
      bus.subscribe('queued', () => heard++);
      bus.publish('queued', hint('a'));
      expect(heard).toBe(1);
      expect(errors).toEqual(['a listener of the bus topic queued failed: Error: broken']);
    });

    it('calls nobody who has left, also while it publishes, and calls who comes in meanwhile next time', async () => {
      const bus = await join();
      const heard: string[] = [];
      let leave = () => {};
      bus.subscribe('queued', () => {
        leave();
        if (heard.length === 0) bus.subscribe('queued', () => heard.push('late'));
        heard.push('first');
      });
      leave = bus.subscribe('queued', () => heard.push('leaver'));
      bus.publish('queued', hint('a'));
      expect(heard).toEqual(['first']);
      bus.publish('queued', hint('b'));
      expect(heard).toEqual(['first', 'first', 'late']);
    });

    it('tells two subscriptions of one listener apart', async () => {
      const bus = await join();
      let heard = 0;
      const listener = () => void heard++;
      const leave = bus.subscribe('queued', listener);
      bus.subscribe('queued', listener);
      bus.publish('queued', hint('a'));
      leave();
      leave();
      bus.publish('queued', hint('b'));
      expect(heard).toBe(3);
    });

    it('answers its check, and is silent once closed', async () => {
      const bus = await join();
      let heard = 0;
      bus.subscribe('queued', () => heard++);
      await bus.check();
      await bus.close();
      bus.publish('queued', hint('a'));
      expect(heard).toBe(0);
    });
  });
}

/** What holds for every bus that reaches other gateways, besides. */
export function testBusBetweenGateways(name: string, open: OpenBus): void {
  describe(`${name}, between gateways`, () => {
    const { errors, join } = createStage(open);

    it('brings what one gateway publishes to all others, times as times', async () => {
      const [here, there, elsewhere] = [await join(), await join(), await join()];
      const change = { agentUid: 'a', epoch: 7, connected: true, at: new Date(), reason: null };
      const heard: unknown[] = [];
      for (const bus of [there, elsewhere]) bus.subscribe('presence', (told) => heard.push(told));
      here.publish('presence', change);
      await eventually(() => heard.length === 2);
      expect(heard).toMatchObject([change, change]);
    });

    it('tells which messages have changed, and keeps what they say at home', async () => {
      const [here, there] = [await join(), await join()];
      const heard: unknown[] = [];
      there.subscribe('messages', () => heard.push('a body'));
      there.subscribe('changed', (changes) => heard.push(changes));
      here.publish('messages', [message]);
      await eventually(() => heard.length > 0);
      expect(heard).toEqual([[{ id: message.id, agentUid: message.agentUid, broadcastId: null }]]);
    });

    it('brings the text of stored events to whoever listens to it, ahead of the hint that tells of them', async () => {
      const [here, there, elsewhere] = [await join(), await join(), await join()];
      const heard: unknown[] = [];
      const listen = () => there.subscribe('bodies', ({ text }) => heard.push(JSON.parse(text)));
      there.subscribe('stored', ({ position }) => heard.push(position));
      let bodiesElsewhere = 0;
      here.subscribe('bodies', () => bodiesElsewhere++);
      elsewhere.subscribe('bodies', () => {})();
      here.publish('events', group(1));
      await eventually(() => heard.includes(1));
      expect(heard).toEqual([1]);

      const leave = listen();
      let position = 1;
      await eventually(() => {
        here.publish('events', group(++position));
        return heard.some(Array.isArray);
      });
      await eventually(() => heard.includes(position));
      heard.length = 0;
      here.publish('events', group(++position));
      here.publish('events', group(++position));
      await eventually(() => heard.includes(position));
      expect(heard).toEqual([[position - 1, position].map((each) => JSON.parse(group(each).text())), position]);

      leave();
      leave();
      heard.length = 0;
      here.publish('events', group(++position));
      await eventually(() => heard.includes(position));
      expect(heard).toEqual([position]);
      // Its own it has not heard, nor who has left.
      expect(bodiesElsewhere).toBe(0);
    });

    it('calls the listeners of its own process at once, and once', async () => {
      const [here, there] = [await join(), await join()];
      const heardHere: number[] = [];
      const heardThere: number[] = [];
      here.subscribe('stored', ({ position }) => heardHere.push(position));
      there.subscribe('stored', ({ position }) => heardThere.push(position));
      here.publish('stored', { position: 1 });
      expect(heardHere).toEqual([1]);
      await eventually(() => heardThere.length === 1);
      // What comes after it has come, and it has not been heard again.
      there.publish('stored', { position: 2 });
      await eventually(() => heardHere.includes(2));
      expect([heardHere, heardThere]).toEqual([
        [1, 2],
        [1, 2],
      ]);
    });

    it('keeps the order of each publisher within a topic', async () => {
      const [one, other, there] = [await join(), await join(), await join()];
      const heard: string[] = [];
      there.subscribe('presence', ({ agentUid }) => heard.push(agentUid));
      const count = 500;
      for (let turn = 0; turn < count; turn++) {
        for (const [publisher, bus] of [one, other].entries())
          bus.publish('presence', {
            agentUid: `${publisher} ${turn}`,
            epoch: 7,
            connected: true,
            at: new Date(),
            reason: null,
          });
        // Some in one turn, some each in its own.
        if (turn % 7 === 0) await new Promise(setImmediate);
      }
      await eventually(() => heard.length === 2 * count);
      for (const publisher of [0, 1])
        expect(heard.filter((text) => text.startsWith(`${publisher} `))).toEqual(
          Array.from({ length: count }, (_, turn) => `${publisher} ${turn}`),
        );
    });

    it('says in one hint what many say in one turn', async () => {
      const [here, there] = [await join(), await join()];
      const queued: string[][] = [];
      const positions: number[] = [];
      there.subscribe('queued', ({ agentUids }) => queued.push([...agentUids]));
      there.subscribe('stored', ({ position }) => positions.push(position));
      for (const position of [3, 5, 4]) here.publish('stored', { position });
      for (const uid of ['a', 'b', 'a']) here.publish('queued', hint(uid));
      await eventually(() => queued.length > 0 && positions.length > 0);
      expect([queued, positions]).toEqual([[['a', 'b']], [5]]);
    });

    it('hears nothing after it has unsubscribed', async () => {
      const [here, there] = [await join(), await join()];
      const heard: string[] = [];
      const unsubscribe = there.subscribe('queued', () => heard.push('left'));
      there.subscribe('queued', () => heard.push('stayed'));
      unsubscribe();
      here.publish('queued', hint('a'));
      await eventually(() => heard.length > 0);
      expect(heard).toEqual(['stayed']);
    });

    it('lets no listener that throws hurt what comes after', async () => {
      const [here, there] = [await join(), await join()];
      let heard = 0;
      there.subscribe('queued', () => {
        throw new Error('broken');
      });
      there.subscribe('queued', () => heard++);
      here.publish('queued', hint('a'));
      await eventually(() => heard === 1);
      here.publish('queued', hint('b'));
      await eventually(() => heard === 2);
      expect(errors).toEqual(Array(2).fill('a listener of the bus topic queued failed: Error: broken'));
    });

    it('knows which other gateways it hears, though nobody has anything to tell', async () => {
      const [here, there, elsewhere] = [await join('one'), await join('two'), await join('three')];
      await eventually(() => [here, there, elsewhere].every(({ peers }) => peers.length === 2));
      expect([...here.peers].sort()).toEqual(['three', 'two']);
    });

    it('tells what it was told before it is closed, and nothing after', async () => {
      const [here, there] = [await join(), await join()];
      const heard: string[] = [];
      there.subscribe('queued', ({ agentUids }) => heard.push(...agentUids));
      here.publish('queued', hint('before'));
      await here.close();
      here.publish('queued', hint('after'));
      await eventually(() => heard.length > 0);
      const third = await join();
      third.publish('queued', hint('last'));
      await eventually(() => heard.includes('last'));
      expect(heard).toEqual(['before', 'last']);
    });
  });
}
