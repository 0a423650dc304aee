import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { z } from 'zod';
import { insertAgents } from '../fleet/agents.ts';
import { hasPostgres } from '../support/databases.ts';
import { startTestGateway, type TestGateway } from '../support/gateway.ts';

const targets = 10_000;
const answerSchema = z.strictObject({
  message_id: z.uuid(),
  sent_to: z.array(z.string()),
  failed: z.array(z.string()),
  queued: z.array(z.string()),
});

describe.runIf(hasPostgres())('POST /api/v1/agents/broadcast to 10,000 agents', () => {
  let gateway: TestGateway;

  beforeAll(async () => {
    gateway = await startTestGateway();
    await insertAgents(gateway, targets, 'default-org');
    await gateway.sql`update agents set dialect = 'handoff' where name in ('agent-1', 'agent-2')`;
  });
  afterAll(() => gateway.stop());

  it('names each of them once, and reads neither messages nor payloads to tell it', async () => {
    gateway.statements.length = 0;
    const answer = await gateway.fetch('/api/v1/agents/broadcast', {
      method: 'POST',
      body: JSON.stringify({ channel: 'policies', message: { op: 'reload' } }),
    });
    const { queued, failed, sent_to } = answerSchema.parse(await answer.json());
    const asked = gateway.statements.filter((text) => text.includes('broadcast_id') && !/^\s*(update|with)/.test(text));
    expect(new Set(queued).size).toBe(targets - 2);
    expect(failed.sort()).toEqual(['agent-1', 'agent-2']);
    expect(sent_to).toEqual([]);
    // The progress, who is not connected, who got it, and what failed at once.
    expect(asked.length).toBeLessThan(10);
    expect(
      asked.filter((text) => text.includes('select * from message_queue') && !text.includes('attempts = 0')),
    ).toEqual([]);
  });
});
