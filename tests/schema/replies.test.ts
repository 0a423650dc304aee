import { afterAll, beforeAll, expect, test } from 'vitest';
import { z } from 'zod';
import { eventually } from '../support/eventually.ts';
import { type ConsumerStage, startConsumerStage } from './consumer-stage.ts';

let stage: ConsumerStage;
beforeAll(async () => {
  stage = await startConsumerStage({ env: { AGENT_KEY_CHANGE: 'quarantine' } });
});
afterAll(() => stage.stop());

const sentSchema = z.object({ sendMessage: z.object({ message: z.object({ id: z.string() }) }) });
const repliesSchema = z.object({
  message: z.object({ replies: z.array(z.object({ agentId: z.string(), payload: z.object({ number: z.number() }) })) }),
});

test('replies to a message are those of the agent it was sent to, while it was trusted, oldest first', async () => {
  const asked = await stage.connect('asked');
  const meddler = await stage.connect('meddler');
  // The same name with another key: its link is in quarantine.
  const impostor = await stage.connect('asked');
  const { sendMessage } = sentSchema.parse(
    await stage.ask(
      'mutation { sendMessage(input: {agentId: "asked", channel: TESTS, payload: {}}) { message { id } } }',
    ),
  );
  const { id } = sendMessage.message;
  const uuid = Buffer.from(id, 'base64url').toString().replace('Message:', '');
  const reply = (number: number) => ({ request_id: uuid, number });
  await meddler.sendEvent('tests', reply(1), { type: 'response' });
  await impostor.sendEvent('tests', reply(2), { type: 'response' });
  await asked.sendEvent('tests', reply(3), { type: 'response' });
  await asked.sendEvent('tests', reply(4), { type: 'response' });
  await meddler.sendEvent('tests', { number: 5 }, { headers: { ack_for: uuid } });
  await asked.sendEvent('tests', { number: 6 }, { headers: { ack_for: uuid } });
  await asked.sendEvent('tests', { number: 7 }, { type: 'response', headers: { request_id: uuid } });
  const stored = '{ events(kinds: [TESTS], includeUntrusted: true) { nodes { messageId } } }';
  const storedSchema = z.object({ events: z.object({ nodes: z.array(z.unknown()).length(7) }) });
  await eventually(async () => storedSchema.safeParse(await stage.ask(stored)).success);
  const { message } = repliesSchema.parse(
    await stage.ask('query ($id: ID!) { message(id: $id) { replies { agentId payload } } }', { id }),
  );
  expect(message.replies.map(({ agentId, payload }) => [agentId, payload.number])).toEqual([
    ['asked', 3],
    ['asked', 4],
    ['asked', 6],
    ['asked', 7],
  ]);
});
