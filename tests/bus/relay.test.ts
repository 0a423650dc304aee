import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import { eventually } from '../support/eventually.ts';
import { group, message, testBus, testBusBetweenGateways } from './contract.ts';
import { createWire, joinWire, type Wire } from './wire.ts';

const shared = createWire();
testBus('a relayed bus', (logError, instanceId) => joinWire(shared, instanceId, { logError }));
testBusBetweenGateways('a relayed bus', (logError, instanceId) => joinWire(shared, instanceId, { logError }));

describe('a relayed bus', () => {
  const told = (wire: Wire, text: object) => {
    for (const { heard } of wire.listeners.keys()) heard(JSON.stringify(text));
  };

  it('says that something was missed once it comes again, from the next number on', async () => {
    const wire = createWire();
    const [here, there] = [await joinWire(wire, 'here'), await joinWire(wire, 'there')];
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
    const there = await joinWire(wire, 'there');
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
      await joinWire(wire, 'here', { logError: (_error, context) => logged.push(context) }),
      await joinWire(wire, 'there'),
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
    const there = await joinWire(wire, 'there', { logError: (error) => logged.push(String(error)) });
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
    for (const { heard: take } of wire.listeners.keys())
      for (const text of ['not json', '[]', '{"origin":1}']) take(text);
    told(wire, { origin: 'newer', number: 3, hints: { disconnect: [hints.disconnect[0]] } });
    expect(heard).toEqual(['a', 'missed', 'c', 'a']);
    // Each kind is told once.
    expect(logged).toHaveLength(2);
    await there.close();
  });

  it('forgets gateways that have not been heard for fifteen seconds', async () => {
    const wire = createWire();
    let nowMs = 0;
    const there = await joinWire(wire, 'there', { monotonicMs: () => nowMs });
    told(wire, { origin: 'here', number: 1, hints: {} });
    nowMs = 15_000;
    expect(there.peers).toEqual(['here']);
    nowMs = 15_001;
    expect(there.peers).toEqual([]);
    await there.close();
  });

  it('tells others in few bytes what many messages have become', async () => {
    const wire = createWire();
    const here = await joinWire(wire, 'here');
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

  it('tells of events without them where nobody takes any, or nobody who says so any more', async () => {
    const wire = createWire();
    let nowMs = 0;
    const here = await joinWire(wire, 'here', { monotonicMs: () => nowMs });
    let made = 0;
    const publish = (position: number) =>
      here.publish('events', { ...group(position), text: () => JSON.stringify({ made: ++made }) });
    const carried = async (position: number) => {
      publish(position);
      await eventually(() => wire.texts.some((text) => text.includes(`"position":${position}`)));
      return wire.bodies.length;
    };
    expect(await carried(1)).toBe(0);
    told(wire, { origin: 'older', number: 1, hints: {} });
    expect(await carried(2)).toBe(0);
    told(wire, { origin: 'there', number: 1, takesBodies: true, hints: {} });
    expect(await carried(3)).toBe(1);
    told(wire, { origin: 'there', number: 2, hints: {} });
    expect(await carried(4)).toBe(1);
    told(wire, { origin: 'there', number: 3, takesBodies: true, hints: {} });
    nowMs = 15_001;
    expect(await carried(5)).toBe(1);
    expect(made).toBe(1);
    await here.close();
  });

  it('leaves events at home first where there is too much to tell, or no room for them, and never where they stand', async () => {
    const wire = createWire();
    const [here, there] = [await joinWire(wire, 'here'), await joinWire(wire, 'there')];
    const heard: (number | string)[] = [];
    there.subscribe('stored', ({ position }) => heard.push(position));
    there.subscribe('missed', () => heard.push('missed'));
    there.subscribe('bodies', ({ text }) => heard.push(`${text.length} of bodies`));
    await eventually(() => wire.texts.some((text) => text.includes('takesBodies')));
    const publish = (position: number, chars: number) =>
      here.publish('events', { ...group(position), text: () => JSON.stringify('x'.repeat(chars - 2)) });
    const told = async (position: number) => {
      await eventually(() => heard.includes(position));
      return heard.splice(0);
    };
    publish(1, 1_000);
    publish(2, 1_000);
    expect(await told(2)).toEqual(['2003 of bodies', 2]);
    publish(3, 800 * 1024);
    publish(4, 800 * 1024);
    expect(await told(4)).toEqual([4]);
    publish(5, 1536 * 1024);
    expect(await told(5)).toEqual([`${1536 * 1024 + 2} of bodies`, 5]);
    wire.state = 'loses bodies';
    publish(6, 1_000);
    expect(await told(6)).toEqual([6]);
    expect(here.lost).toBe(0);
    for (const bus of [here, there]) await bus.close();
  });
});
