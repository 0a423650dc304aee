import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Database, openDatabase } from '../../src/db/database.ts';
import { type FleetUnderTest, fleetUnderTest, letIn } from '../fleet/admission-stage.ts';
import { fingerprintOf, newKey } from '../fleet/agents.ts';
import { hasPostgres } from '../support/databases.ts';
import { freshName } from './raw-agent.ts';
import { type Stage, startStage } from './stage.ts';

/** Two gateways on one Postgres without Redis, and v2 agents who come by another one still. */
describe.skipIf(!hasPostgres())('a fleet on its way from v1 to v2', () => {
  let stage: Stage;
  let other: Stage;
  let database: Database;
  let v2: FleetUnderTest;
  beforeAll(async () => {
    const env = { AGENT_ENROLLMENT: 'open', AGENT_KEY_CHANGE: 'quarantine' };
    stage = await startStage({ env });
    other = await startStage({ env, databaseUrl: stage.gateway.databaseUrl ?? '' });
    database = await openDatabase({ databaseUrl: stage.gateway.databaseUrl, dataDir: 'memory' });
    v2 = await fleetUnderTest(database, { defaultOrg: 'default-org', enrollment: 'open' });
  });
  afterAll(async () => {
    await database.close();
    await other.stop();
    await stage.stop();
  });

  const approve = (ref: string, keyFingerprint: string) =>
    stage.ask('mutation ($ref: ID!, $key: String) { approveAgent(agentId: $ref, keyFingerprint: $key) { uid } }', {
      ref,
      key: keyFingerprint,
    });
  const stranger = (name: string) => stage.authenticated({ agentId: name });
  const v1Refusals = () => stage.metric('aegis_authentications_total{result="AGENT_V1_REFUSED",protocol="v1"}');

  it('sees who waits with a key of v2, and who speaks what since when', async () => {
    const agent = await stage.registered();
    const publicKey = newKey();
    letIn(await v2.v2(agent.agentId, { publicKey }));
    await stranger(agent.agentId);
    const { agent: seen } = await stage.ask(
      `query ($ref: ID!) { agent(agentId: $ref) {
        pendingKeyProtocol pendingKeys { protocol fingerprint since } v2Since lastV1At lastV2At session { protocol } } }`,
      { ref: agent.agentId },
    );
    expect(seen).toMatchObject({
      pendingKeyProtocol: 'V1',
      pendingKeys: [{ protocol: 'V1' }, { protocol: 'V2', fingerprint: fingerprintOf(publicKey) }],
      ...{ v2Since: null, lastV1At: expect.any(String), lastV2At: null, session: { protocol: 'V1' } },
    });
  });

  it('keeps the v1 link until the v2 link takes over, and refuses v1 from the approval on, counted by its code', async () => {
    const agent = await stage.registered();
    const beside = await stranger(agent.agentId);
    const publicKey = newKey();
    letIn(await v2.v2(agent.agentId, { publicKey }));
    const before = await v1Refusals();
    await approve(agent.agentId, fingerprintOf(publicKey));
    expect(await beside.closed).toMatchObject({ code: 4001 });
    expect(agent.isOpen).toBe(true);
    letIn(await v2.v2(agent.agentId, { publicKey }));
    const again = await stage.dial({ agentId: agent.agentId, key: agent.key });
    expect(await again.authenticate()).toMatchObject({ success: false, code: 'AGENT_V1_REFUSED' });
    expect(await again.closed).toMatchObject({ code: 4001 });
    expect(await v1Refusals()).toBe(before + 1);

    await stage.ask('mutation ($ref: ID!) { resetAgentKey(agentId: $ref) { uid } }', { ref: agent.agentId });
    const back = await stage.authenticated({ agentId: agent.agentId });
    expect(back.isOpen).toBe(true);
  });

  it('is not stranded by strangers on v2: v1 agents come back under the same names', async () => {
    const agent = await stage.registered();
    for (let count = 0; count < 3; count++) letIn(await v2.v2(agent.agentId));
    const back = await stage.authenticated({ agentId: agent.agentId, key: agent.key });
    await stage.untilStatus(await stage.send(agent.agentId), 'DELIVERED');
    expect(back.isOpen).toBe(true);
  });

  it('has revoked agents closed on the other gateway too, which no hint reaches', async () => {
    const name = freshName();
    const agent = await other.registered({ agentId: name });
    await stage.ask('mutation ($ref: ID!) { revokeAgent(agentId: $ref) { uid } }', { ref: name });
    expect(await agent.closed).toMatchObject({ code: 4003 });
    expect(await other.metric('aegis_links{protocol="v2"}')).toBe(0);
  });
});
