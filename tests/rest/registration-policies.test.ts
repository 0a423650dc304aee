import { afterEach, describe, expect, it } from 'vitest';
import { plainError } from './rest-caller.ts';
import { begin, completeBody, initBody, type Registrant, register, registrant } from './rest-registrant.ts';
import { type RestUnderTest, startRest } from './rest-under-test.ts';

let rest: RestUnderTest;

afterEach(() => rest.close());

async function complete(host: Registrant) {
  const body = completeBody(host, await begin(rest.call, host));
  return rest.call('POST', '/agents/register/complete', { body, token: null });
}

const approve = 'mutation ($id: ID!) { approveAgent(agentId: $id) { enrollment } }';
const enrollmentOf = 'query ($id: ID!) { agent(agentId: $id) { enrollment orgId pendingKeyFingerprint } }';

describe('registration over HTTP', () => {
  it('is 403 `registration closed` under AGENT_ENROLLMENT=closed, but a bad key is told first', async () => {
    rest = await startRest({ AGENT_ENROLLMENT: 'closed' });
    const init = (body: unknown) => rest.call('POST', '/agents/register/init', { body, token: null });
    expect(await init(initBody(registrant('closed')))).toMatchObject(plainError(403, 'registration closed'));
    expect(await init({ host_id: 'closed', agent_pubkey: 'x' })).toMatchObject(plainError(400, 'bad pubkey'));
  });

  it('is 409 `key conflict` for a known host with another key under AGENT_KEY_CHANGE=refuse', async () => {
    rest = await startRest({ AGENT_KEY_CHANGE: 'refuse' });
    const host = registrant('conflict');
    await register(rest.call, host);
    expect(await complete(registrant('conflict'))).toMatchObject(plainError(409, 'key conflict'));
    expect(await complete(host)).toMatchObject({ status: 200 });
  });

  it('keeps the uid and lets a new key wait under AGENT_KEY_CHANGE=quarantine', async () => {
    rest = await startRest({ AGENT_KEY_CHANGE: 'quarantine' });
    const { agent_uid } = await register(rest.call, registrant('waiting'));
    expect((await register(rest.call, registrant('waiting'))).agent_uid).toBe(agent_uid);
    expect(await rest.graphql(enrollmentOf, { id: agent_uid })).toMatchObject({
      agent: { enrollment: 'APPROVED', pendingKeyFingerprint: expect.stringMatching(/^[0-9a-f]{64}$/) },
    });
  });

  it('is 403 for an agent that is revoked', async () => {
    rest = await startRest();
    const host = registrant('revoked');
    const { agent_uid } = await register(rest.call, host);
    await rest.graphql('mutation ($id: ID!) { revokeAgent(agentId: $id) { uid } }', { id: agent_uid });
    expect(await complete(host)).toMatchObject(plainError(403, 'The agent is revoked'));
  });

  it('makes an agent that waits under AGENT_ENROLLMENT=approval, to which no broadcast goes until it is approved', async () => {
    rest = await startRest({ AGENT_ENROLLMENT: 'approval' });
    const { agent_uid } = await register(rest.call, registrant('new', { org_id: 'another-org' }));
    expect(await rest.graphql(enrollmentOf, { id: agent_uid })).toMatchObject({
      agent: { enrollment: 'PENDING', orgId: 'default-org' },
    });
    const body = { channel: 'tests', message: 1, message_type: 'event' };
    const broadcast = async () => (await rest.call('POST', '/api/v1/agents/broadcast', { body })).json;
    expect(await broadcast()).toMatchObject({ sent_to: [], failed: [], queued: [] });
    await rest.graphql(approve, { id: agent_uid });
    expect(await broadcast()).toMatchObject({ sent_to: [], failed: [], queued: ['new'] });
  });

  it('counts an agent whose registration names no organisation to DEFAULT_ORG', async () => {
    rest = await startRest({ DEFAULT_ORG: 'acme' });
    const { agent_uid } = await register(rest.call, registrant('ours'));
    expect((await rest.call('GET', `/agents/${agent_uid}`)).json).toMatchObject({ org_id: 'acme' });
  });
});
