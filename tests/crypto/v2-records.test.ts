import { describe, expect, it } from 'vitest';
import { establish, json, opened, suites } from './v2-parties.ts';

describe.each(suites)('the records of v2 on $name', ({ suite }) => {
  it('go on under the next key after a rekey, in either direction', () => {
    const { agent, gateway } = establish(suite);
    expect(opened(gateway, agent.sealer.seal(json(['before'])))).toEqual(['before']);
    agent.sealer.rekey();
    expect(opened(gateway, agent.sealer.seal(json(['after'])))).toEqual(['after']);
    expect(opened(gateway, agent.sealer.seal(json(['still'])))).toEqual(['still']);
    expect(agent.sealer.generation).toBe(1);
    expect(opened(agent, gateway.sealer.seal(json(['back'])))).toEqual(['back']);
  });

  it('open once, in order, unchanged, and never again after one that did not', () => {
    const { agent, gateway } = establish(suite);
    const [first, second] = [agent.sealer.seal(json([1])), agent.sealer.seal(json([2]))];
    expect(opened(gateway, first)).toEqual([1]);
    expect(opened(gateway, first)).toBe('out-of-sequence');
    expect(opened(gateway, second)).toBe('closed');
  });
});
