import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { z } from 'zod';
import { hasPostgres } from '../support/databases.ts';
import { startTestGateway, type TestGateway } from '../support/gateway.ts';
import { ask, makeKey } from './stage.ts';

let gateway: TestGateway;
beforeAll(async () => {
  gateway = await startTestGateway();
});
afterAll(() => gateway.stop());

const idSchema = z.object({ id: z.string() });
const sent = z.object({
  broadcast: z.object({ broadcast: idSchema.extend({ messages: z.object({ nodes: z.array(idSchema) }) }) }),
});

/** An approved agent that never connects. */
async function insertAgent(orgId: string): Promise<void> {
  const hostId = `host-${randomUUID()}`;
  await gateway.sql`
    insert into agents (org_id, name, public_key, key_fingerprint, enrollment)
    values (${orgId}, ${hostId}, ${hostId}, ${randomUUID()}, 'approved')`;
}

it.skipIf(!hasPostgres())(
  'a broadcast to every organisation shows a consumer of one no more than the message to its own agent',
  async () => {
    await insertAgent('acme');
    await insertAgent('globex');
    const { key } = await makeKey(gateway, { scopes: ['messages:read', 'agents:read'], orgId: 'acme' });
    const { data } = await ask(
      gateway,
      `mutation { broadcast(input: { channel: POLICIES, payload: "p" }) { broadcast { id messages { nodes { id } } } } }`,
    );
    const { broadcast } = sent.parse(data).broadcast;
    expect(broadcast.messages.nodes).toHaveLength(2);
    const seen = await Promise.all(
      broadcast.messages.nodes.map(({ id }) =>
        ask(gateway, 'query ($id: ID!) { message(id: $id) { broadcast { messages { nodes { id } } } } }', { id }, key),
      ),
    );
    expect(seen.map(({ data }) => data)).toEqual(
      expect.arrayContaining([{ message: null }, { message: { broadcast: null } }]),
    );
    const { id } = broadcast;
    const asked = 'query ($id: ID!) { broadcast(id: $id) { id } node(id: $id) { id } }';
    expect((await ask(gateway, asked, { id }, key)).data).toEqual({ broadcast: null, node: null });
  },
);
