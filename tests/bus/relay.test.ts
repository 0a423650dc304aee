import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import type { Bus } from '../../src/bus/bus.ts';
import { type CarrierListener, createRelayedBus } from '../../src/bus/relay.ts';
import { systemClock } from '../../src/clock.ts';
import { eventually } from '../support/eventually.ts';
import { message, testBus, testBusBetweenGateways } from './contract.ts';

/** Everyone who listens on one wire, which a test may cut or hold up. */
interface Wire {
  readonly listeners: Set<CarrierListener>;
  readonly texts: string[];
  state: 'carries' | 'loses' | 'keeps waiting';
}

const createWire = (): Wire => ({ listeners: new Set(), texts: [], state: 'carries' });

function join(
  wire: Wire,
  instanceId: string,
  deps: Partial<Parameters<typeof createRelayedBus>[1]> = {},
): Promise<Bus> {
  const errors = deps.logError ?? (() => {});
  return createRelayedBus(
    async (listener) => {
      wire.listeners.add(listener);
      let last = Promise.resolve();
      async function carry(text: string): Promise<void> {
        if (wire.state === 'loses') throw new Error('cut');
        while (wire.state === 'keeps waiting') await new Promise((resolve) => setTimeout(resolve, 5));
        wire.texts.push(text);
        for (const { heard } of wire.listeners) heard(text);
      }
      return {
        send(text) {
          const sent = last.then(() => carry(text));
          last = sent.catch(() => {});
          return sent;
        },
        check: async () => {},
        close: () => void wire.listeners.delete(listener),
      };
    },
    { instanceId, clock: systemClock, ...deps, logError: errors },
  );
}

const shared = createWire();
testBus('a relayed bus', (logError, instanceId) => join(shared, instanceId, { logError }));
testBusBetweenGateways('a relayed bus', (logError, instanceId) => join(shared, instanceId, { logError }));

describe('a relayed bus', () => {
  const told = (wire: Wire, text: object) => {
    for (const { heard } of wire.listeners) heard(JSON.stringify(text));
  };

  it('says that something was missed once it comes again, from the next number on', async () => {
    const wire = createWire();
    const [here, there] = [await join(wire, 'here'), await join(wire, 'there')];
    const heard: string[] = [];
    there.subscribe('queued', ({ agentUids }) => heard.push(...agentUids));
    there.subscribe('missed', () => heard.push('missed'));
    here.publish('queued', { agentUids: ['first'] });
    await eventually(() => heard.length === 1);
    wire.state = 'loses';
    here.publish('queued', { agentUids: ['lost'] });
    await eventually(() => here.lost === 1);
    wire.state = 'carries';
    // Nobody has anything to tell: the beat tells it.
    await eventually(() => heard.includes('missed'));
    expect(heard).toEqual(['first', 'missed']);
    for (const bus of [here, there]) await bus.close();
  });

  it('asks for a look once where much was missed, and once more for what was missed after that', async () => {
    const wire = createWire();
    const there = await join(wire, 'there');
    let missed = 0;
    there.subscribe('missed', () => missed++);
    for (const number of [2, 4, 6, 8]) told(wire, { origin: 'here', number, hints: {} });
    expect(missed).toBe(1);
    await eventually(() => missed === 2);
    await there.close();
  });

  it('gathers while texts are under way, and holds no more than it may while nothing moves', async () => {
    const wire = createWire();
    const logged: string[] = [];
    const [here, there] = [
      await join(wire, 'here', { logError: (_error, context) => logged.push(context) }),
      await join(wire, 'there'),
    ];
    let missed = 0;
    const heard = new Set<string>();
    there.subscribe('missed', () => missed++);
    there.subscribe('queued', ({ agentUids }) => {
      for (const uid of agentUids) heard.add(uid);
    });
    wire.state = 'keeps waiting';
    for (let index = 0; index < 5_000; index++) {
      here.publish('queued', { agentUids: [`a${index}`] });
      if (index < 5) await new Promise(setImmediate);
    }
    const sentBefore = wire.texts.length;
    wire.state = 'carries';
    await eventually(() => heard.size === 5_000);
    // Two that were under way, and everything else in one.
    expect(wire.texts.length - sentBefore).toBeLessThanOrEqual(3 + 1);
    expect([here.lost, missed]).toEqual([0, 0]);

    wire.state = 'keeps waiting';
    for (let index = 0; index < 100_000; index++) {
      here.publish('queued', { agentUids: [`b${index}`] });
      if (index < 5) await new Promise(setImmediate);
    }
    expect(here.lost).toBeGreaterThanOrEqual(80_000);
    wire.state = 'carries';
    await eventually(() => missed > 0);
    expect(logged).toEqual(['hints do not reach the other gateways, which find by polling what they tell']);
    for (const bus of [here, there]) await bus.close();
  });

  it('passes over what a newer version says, has it looked for, and goes on', async () => {
    const wire = createWire();
    const logged: string[] = [];
    const there = await join(wire, 'there', { logError: (error) => logged.push(String(error)) });
    const heard: string[] = [];
    there.subscribe('disconnect', ({ agentUids }) => heard.push(...agentUids));
    there.subscribe('missed', () => heard.push('missed'));
    const hints = {
      quarantines: [{ agentUids: ['a topic of a newer version'] }],
      disconnect: [
        { agentUids: ['a'], reason: 'LINK_DISCONNECTED', since: 'a field of a newer version' },
        { agentUids: ['b'], reason: 'A_REASON_OF_A_NEWER_VERSION' },
        { agentUids: ['c'], reason: 'AGENT_REVOKED' },
      ],
    };
    told(wire, { origin: 'newer', number: 1, hints, signature: 'a field of a newer version' });
    expect(heard).toEqual(['a', 'missed', 'c']);
    told(wire, { origin: 'newer', number: 2, hints: { disconnect: [hints.disconnect[1]] } });
    for (const { heard: take } of wire.listeners) for (const text of ['not json', '[]', '{"origin":1}']) take(text);
    told(wire, { origin: 'newer', number: 3, hints: { disconnect: [hints.disconnect[0]] } });
    expect(heard).toEqual(['a', 'missed', 'c', 'a']);
    // Each kind is told once.
    expect(logged).toHaveLength(2);
    await there.close();
  });

  it('forgets gateways that have not been heard for fifteen seconds', async () => {
    const wire = createWire();
    let nowMs = 0;
    const there = await join(wire, 'there', { monotonicMs: () => nowMs });
    told(wire, { origin: 'here', number: 1, hints: {} });
    nowMs = 15_000;
    expect(there.peers).toEqual(['here']);
    nowMs = 15_001;
    expect(there.peers).toEqual([]);
    await there.close();
  });

  it('tells others in few bytes what many messages have become', async () => {
    const wire = createWire();
    const here = await join(wire, 'here');
    here.publish(
      'messages',
      Array.from({ length: 100 }, () => ({ ...message, payload: 'x'.repeat(10_000) })),
    );
    await eventually(() => wire.texts.some((text) => text.includes('changed')));
    const sent = z.object({ hints: z.object({ changed: z.array(z.array(z.unknown())).optional() }) });
    expect(wire.texts.flatMap((text) => sent.parse(JSON.parse(text)).hints.changed ?? []).flat()).toHaveLength(100);
    expect(wire.texts.join('').length).toBeLessThan(20_000);
    await here.close();
  });
});
