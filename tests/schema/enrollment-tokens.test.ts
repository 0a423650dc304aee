import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { z } from 'zod';
import { type ConsumerStage, startConsumerStage } from './consumer-stage.ts';

let stage: ConsumerStage;
beforeAll(async () => {
  stage = await startConsumerStage();
});
afterAll(() => stage.stop());

const fields = 'id orgId agentId note state expiresAt usedAt usedBy { agentId } revokedAt';
const create = `mutation ($input: CreateEnrollmentTokenInput!) { createEnrollmentToken(input: $input) {
  token enrollmentToken { ${fields} } } }`;
const revoke = `mutation ($id: ID!) { revokeEnrollmentToken(id: $id) { ${fields} } }`;
const list = `query ($first: Int, $after: String, $last: Int) { enrollmentTokens(first: $first, after: $after, last: $last) {
  totalCount nodes { ${fields} } edges { cursor } pageInfo { hasNextPage endCursor } } }`;

const createdSchema = z.object({
  createEnrollmentToken: z.object({ token: z.string(), enrollmentToken: z.object({ id: z.string() }) }),
});
const listSchema = z.object({
  enrollmentTokens: z.object({
    totalCount: z.number(),
    nodes: z.array(z.object({ id: z.string(), note: z.string().nullable() })),
    pageInfo: z.object({ hasNextPage: z.boolean(), endCursor: z.string().nullable() }),
  }),
});

async function created(input: Record<string, unknown>) {
  return createdSchema.parse(await stage.ask(create, { input })).createEnrollmentToken;
}

describe('an enrolment token', () => {
  test('is shown when it is made, and never again', async () => {
    const { createEnrollmentToken: made } = await stage.ask(create, { input: { expiresIn: 60, note: 'rack 7' } });
    expect(made).toMatchObject({
      token: expect.stringMatching(/^enr_[\w-]{43}$/),
      enrollmentToken: {
        ...{ orgId: 'default-org', agentId: null, note: 'rack 7', state: 'USABLE' },
        ...{ usedAt: null, usedBy: null, revokedAt: null },
      },
    });
    const { token } = await created({ expiresIn: 60, orgId: 'acme', agentId: 'db-7' });
    const { text } = await stage.post({ query: list });
    expect(text).toContain('"agentId":"db-7"');
    expect(text).not.toContain(token);
  });

  test('is listed, the newest first, page by page', async () => {
    for (const note of ['one', 'two', 'three']) await created({ expiresIn: 60, note });
    const first = listSchema.parse(await stage.ask(list, { first: 2 })).enrollmentTokens;
    expect(first.nodes.map(({ note }) => note)).toEqual(['three', 'two']);
    const next = listSchema.parse(
      await stage.ask(list, { first: 1, after: first.pageInfo.endCursor }),
    ).enrollmentTokens;
    expect(next.nodes.map(({ note }) => note)).toEqual(['one']);
    expect(first.pageInfo.hasNextPage).toBe(true);
    const { totalCount } = first;
    const oldest = listSchema.parse(await stage.ask(list, { last: totalCount })).enrollmentTokens;
    expect(oldest.nodes.slice(0, 3).map(({ note }) => note)).toEqual(['three', 'two', 'one']);
    expect(await stage.codesOf(list, { first: 1, after: 'nonsense' })).toEqual(['CURSOR_INVALID']);
    expect(await stage.codesOf(list, { first: 501 })).toEqual(['BAD_USER_INPUT']);
  });

  test('is revoked, once and for all; one that there is not is NOT_FOUND', async () => {
    const { enrollmentToken } = await created({ expiresIn: 60 });
    const { revokeEnrollmentToken: first } = await stage.ask(revoke, { id: enrollmentToken.id });
    expect(first).toMatchObject({ state: 'REVOKED', revokedAt: expect.any(String) });
    expect((await stage.ask(revoke, { id: enrollmentToken.id })).revokeEnrollmentToken).toEqual(first);
    for (const id of ['00000000-0000-4000-8000-000000000000', 'nonsense', ''])
      expect(await stage.codesOf(revoke, { id })).toEqual(['NOT_FOUND']);
  });

  test.each([
    [{ expiresIn: 0 }, '`expiresIn` must be from 1 to 2592000'],
    [{ expiresIn: 2_592_001 }, '`expiresIn` must be from 1 to 2592000'],
    [{ expiresIn: 60, agentId: 'x'.repeat(256) }, '`agentId`'],
    [{ expiresIn: 60, note: 'x'.repeat(10_001) }, '`note`'],
  ])('has bounds: %j', async (input, message) => {
    const { answer } = await stage.post({ query: create, variables: { input } });
    expect(answer.errors?.[0]).toMatchObject({ extensions: { code: 'BAD_USER_INPUT' } });
    expect(answer.errors?.[0]?.message).toContain(message);
  });

  test('lives 30 days at most', async () => {
    expect((await created({ expiresIn: 2_592_000 })).token).toMatch(/^enr_/);
  });
});

test("the gateway tells its keys' fingerprints", async () => {
  const { gateway } = await stage.ask('{ gateway { keys { current next } } }');
  expect(gateway).toEqual({ keys: { current: expect.stringMatching(/^[0-9a-f]{64}$/), next: null } });
});
