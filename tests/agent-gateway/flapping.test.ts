import { afterAll, beforeAll, expect, it } from 'vitest';
import { startV1Agent } from '../../src/agent-client/index.ts';
import { nativeCrypto } from '../../src/agent-gateway/crypto/native.ts';
import { eventually } from '../support/eventually.ts';
import { type Stage, startStage } from './stage.ts';

const commandCount = 60;

let stage: Stage;
beforeAll(async () => {
  stage = await startStage();
});
afterAll(() => stage.stop());

it.each([
  ['goes on reading the socket that it leaves', true],
  ['reads the socket that it leaves no more', false],
])(
  'a flapping agent that %s gets each command exactly once, in order',
  async (_what, readsAbandoned) => {
    const agent = startV1Agent({
      url: stage.gateway.agentUrl,
      agentId: `flapping-${readsAbandoned}`,
      suite: nativeCrypto,
      habits: { flaps: 'always', overlaps: true, readsAbandoned },
      timings: { flapMinMs: 150, flapMaxMs: 400 },
    });
    await agent.ready();
    const ids: string[] = [];
    // So that they come while links come and go.
    for (let index = 0; index < commandCount; index++) {
      ids.push(await stage.send(agent.agentId, { payload: index }));
      if (index % 10 === 9) {
        const links = agent.linkCount;
        await eventually(() => agent.linkCount > links);
      }
    }
    for (const id of ids) await stage.untilStatus(id, 'DELIVERED', 15_000);
    const read = agent.commands.entries.map(({ id }) => id);
    expect(read).toEqual(ids.map((id) => Buffer.from(id, 'base64url').toString().replace('Message:', '')));
    await agent.close();
  },
  40_000,
);
