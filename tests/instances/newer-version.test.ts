import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { z } from 'zod';
import { type Stage, startStage } from '../agent-gateway/stage.ts';
import { hasPostgres } from '../support/databases.ts';
import { eventually } from '../support/eventually.ts';

/** While a fleet is upgraded one by one, a gateway finds in the database what only its newer siblings know. */
describe.skipIf(!hasPostgres())('what a newer version has written', () => {
  let stage: Stage;
  beforeAll(async () => {
    stage = await startStage();
  });
  afterAll(() => stage.stop());

  async function insertMessage(
    agentUid: string,
    given: { channel?: string; type?: string; status?: string; rank?: number },
  ) {
    const { channel = 'backend.policies', type = 'request', status = 'pending', rank = 1 } = given;
    await stage.gateway.sql`
      insert into message_queue (agent_id, agent_name, org_id, channel, message_type, payload, encrypted_payload, nonce,
        signature, priority, max_retries, expires_at, request_hash, status)
      values (${agentUid}, 'agent', 'default-org', ${channel}, ${type}, '{}', '', '', '', ${rank}, 3,
        now() + interval '1 hour', '', ${status})`;
  }

  it('holds up no message that this one knows, and is left as it is', async () => {
    const agent = await stage.registered();
    const uid = (await stage.agent(agent.agentId))?.uid ?? '';
    for (const given of [{ channel: 'backend.quarantine' }, { type: 'plea' }, { status: 'paused' }, { rank: 7 }])
      await insertMessage(uid, given);
    await stage.untilStatus(await stage.send(agent.agentId), 'DELIVERED');
    await stage.untilStatus(await stage.send(agent.agentId), 'DELIVERED');
    const { agent: seen } = await stage.ask(
      'query ($ref: ID!) { agent(agentId: $ref) { messages(first: 10) { nodes { status } } } }',
      { ref: agent.agentId },
    );
    expect(seen).toEqual({ messages: { nodes: [{ status: 'DELIVERED' }, { status: 'DELIVERED' }] } });
    expect(agent.received.filter((text) => text.includes('"backend.'))).toHaveLength(2);
    const left = await stage.gateway.sql`
      select status from message_queue where agent_id = ${uid} and status in ('pending', 'paused') order by status`;
    expect(left.map(({ status }) => status)).toEqual(['paused', 'pending', 'pending', 'pending']);
  });

  it('stops no stream of events: what this one knows goes on behind it', async () => {
    const agent = await stage.registered();
    const uid = (await stage.agent(agent.agentId))?.uid ?? '';
    const { gateway } = stage;
    await stage.event(agent.agentId, agent.report('anomalies', { severity: 'low' }));
    await gateway.sql`
      with head as (update event_stream set position = position + 1 where id = 1 returning position, hour)
      insert into events (hour, position, kind, org_id, agent_uid, agent_name, message_id, occurred_at, received_at, trusted,
        sealed, severity, payload)
      select hour, position, 'anomalies', 'default-org', ${uid}, 'agent', ${randomUUID()}, now(), now(), true, false, 99, '{}'
      from head`;
    const response = await gateway.fetch('/graphql', {
      method: 'POST',
      headers: { 'content-type': 'application/json', accept: 'text/event-stream' },
      body: JSON.stringify({
        query: `subscription ($ref: ID) { anomalies(agentId: $ref, after: "${cursorOf(0)}") { messageId } }`,
        variables: { ref: agent.agentId },
      }),
    });
    const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader();
    let text = '';
    const later = agent.report('anomalies', { severity: 'low' });
    await eventually(async () => {
      text += (await reader?.read())?.value ?? '';
      return text.includes(later);
    });
    await reader?.cancel();
    const data = z.object({ data: z.object({ anomalies: z.object({ messageId: z.string() }) }) });
    const shown = [...text.matchAll(/^data: (\{"data".*)$/gm)].map(([, json]) => data.parse(JSON.parse(json ?? '')));
    expect(shown).toHaveLength(2);
  });
});

function cursorOf(position: number): string {
  return Buffer.from(`event:${position}`).toString('base64url');
}
