import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { z } from 'zod';
import { eventually } from '../support/eventually.ts';
import { type ConsumerStage, startConsumerStage } from './consumer-stage.ts';

const pageInfo = z.object({
  hasNextPage: z.boolean(),
  hasPreviousPage: z.boolean(),
  startCursor: z.string().nullable(),
  endCursor: z.string().nullable(),
});
const agentsSchema = z.object({
  agents: z.object({
    totalCount: z.number(),
    nodes: z.array(z.object({ agentId: z.string() })),
    edges: z.array(z.object({ cursor: z.string() })),
    pageInfo,
  }),
});
const eventsSchema = z.object({
  events: z.object({ nodes: z.array(z.object({ messageId: z.string(), cursor: z.string() })), pageInfo }),
});

const agentsPage = `query ($first: Int, $after: String, $last: Int, $before: String, $filter: AgentFilter) {
  agents(first: $first, after: $after, last: $last, before: $before, filter: $filter) {
    totalCount nodes { agentId } edges { cursor } pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
  }
}`;
const eventsPage = `query ($first: Int, $after: String, $last: Int, $before: String, $kinds: [EventKind!], $agentId: ID, $minSeverity: Severity) {
  events(first: $first, after: $after, last: $last, before: $before, kinds: $kinds, agentId: $agentId, minSeverity: $minSeverity) {
    nodes { messageId cursor } pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
  }
}`;

const names = ['alpha', 'bravo', 'charlie', 'delta', 'echo.example.net'];
let stage: ConsumerStage;
const sent: string[] = [];

beforeAll(async () => {
  stage = await startConsumerStage();
  for (const name of names) await stage.connect(name);
  const alpha = await stage.connect('zulu');
  const bodies = [
    ['anomalies', { type: 'beaconing', severity: 'WARN', message: 'beacon' }],
    [
      'threats',
      { type: 'c2', severity: 'critical', indicators: [{ type: 'ip', value: '203.0.113.7', confidence: 0.9 }] },
    ],
    ['processes', { action: 'exec', pid: '4242', name: 'curl', path: '/usr/bin/curl', user: 'www-data' }],
    ['logs', { level: 'info', message: 'x' }],
    ['anomalies', { type: 'port_scan', severity: 'low' }],
    ['anomalies', { type: 17 }],
  ] as const;
  for (const [kind, body] of bodies) sent.push((await alpha.sendEvent(kind, body)).message.id);
  await eventually(async () => (await storedIds({ agentId: 'zulu', first: 100 })).length >= sent.length);
});
afterAll(() => stage.stop());

const agentsWith = async (variables: Record<string, unknown>) =>
  agentsSchema.parse(await stage.ask(agentsPage, variables)).agents;
const eventsWith = async (variables: Record<string, unknown>) =>
  eventsSchema.parse(await stage.ask(eventsPage, variables)).events;
const namesOf = (page: { nodes: { agentId: string }[] }) => page.nodes.map((node) => node.agentId);
const storedIds = async (variables: Record<string, unknown>) =>
  (await eventsWith(variables)).nodes.map((node) => node.messageId).filter((id) => sent.includes(id));

describe('agents', () => {
  test('come by name, counted', async () => {
    const page = await agentsWith({});
    expect(namesOf(page)).toEqual([...names, 'zulu']);
    expect(page.totalCount).toBe(6);
    expect(page.pageInfo).toMatchObject({ hasNextPage: false, hasPreviousPage: false });
  });

  test('page forwards to the end, each once', async () => {
    const seen: string[] = [];
    let after: string | null = null;
    for (let more = true; more; ) {
      const page: z.infer<typeof agentsSchema>['agents'] = await agentsWith({ first: 4, after });
      seen.push(...namesOf(page));
      expect(page.pageInfo.endCursor).toBe(page.edges.at(-1)?.cursor);
      expect(page.pageInfo.hasPreviousPage).toBe(after !== null);
      more = page.pageInfo.hasNextPage;
      after = page.pageInfo.endCursor;
    }
    expect(seen).toEqual([...names, 'zulu']);
  });

  test('page backwards from the end, in the same order', async () => {
    const end = await agentsWith({ last: 2 });
    expect(namesOf(end)).toEqual(['echo.example.net', 'zulu']);
    expect(end.pageInfo.hasPreviousPage).toBe(true);
    const before = await agentsWith({ last: 3, before: end.pageInfo.startCursor });
    expect(namesOf(before)).toEqual(['bravo', 'charlie', 'delta']);
    expect(before.pageInfo).toMatchObject({ hasNextPage: true, hasPreviousPage: true });
  });

  test('can be filtered', async () => {
    const filtered = async (filter: unknown) => namesOf(await agentsWith({ filter }));
    expect(await filtered({ search: 'ECHO' })).toEqual(['echo.example.net']);
    expect(await filtered({ agentIds: ['alpha', 'delta', 'nobody'] })).toEqual(['alpha', 'delta']);
    expect(await filtered({ connected: true, protocol: 'V1' })).toEqual([...names, 'zulu']);
    expect(await filtered({ protocol: 'V2' })).toEqual([]);
    expect(await filtered({ enrollment: 'PENDING' })).toEqual([]);
    expect(await filtered({ orgId: 'another-org' })).toEqual([]);
    expect(await filtered({ search: '%' })).toEqual([]);
  });

  test('take a page of none and of 500, and refuse 501, negative sizes and both ends at once', async () => {
    expect(namesOf(await agentsWith({ first: 0 }))).toEqual([]);
    expect((await agentsWith({ first: 500 })).nodes).toHaveLength(6);
    for (const variables of [{ first: 501 }, { last: 501 }, { first: -1 }, { first: 1, last: 1 }])
      expect(await stage.codesOf(agentsPage, variables)).toEqual(['BAD_USER_INPUT']);
  });

  test('refuse a cursor that is not theirs', async () => {
    const event = await eventsWith({ first: 1 });
    for (const after of ['', 'x', event.pageInfo.endCursor])
      expect(await stage.codesOf(agentsPage, { after })).not.toEqual([]);
    expect(await stage.codesOf(agentsPage, { after: event.pageInfo.endCursor })).toEqual(['CURSOR_INVALID']);
  });
});

describe('an agent', () => {
  const one =
    'query ($ref: ID!) { agent(agentId: $ref) { id agentId uid connected dialect channels session { protocol } } }';
  const agentSchema = z.object({
    agent: z.object({
      id: z.string(),
      agentId: z.string(),
      uid: z.uuid(),
      connected: z.boolean(),
      dialect: z.string().nullable(),
      channels: z.array(z.string()),
      session: z.object({ protocol: z.string() }).nullable(),
    }),
  });

  test('is found by name, uid and node id, connected and with sixteen channels in the long form', async () => {
    const { agent } = agentSchema.parse(await stage.ask(one, { ref: 'echo.example.net' }));
    expect(agent).toMatchObject({ connected: true, dialect: 'ENVELOPED', session: { protocol: 'V1' } });
    expect(agent.channels).toHaveLength(16);
    expect(agent.channels).toContain('agent.echo.example.net.anomalies');
    expect(agent.channels).toContain('backend.echo.example.net.investigations');
    for (const ref of [agent.uid, agent.id, agent.uid.toUpperCase()])
      expect(await stage.ask(one, { ref })).toEqual({ agent });
  });

  test('is null where there is none', async () => {
    for (const ref of ['nobody', '', '3b241101-e2bb-4255-8caf-4136c566a962', 'QWdlbnQ6eA', '%'])
      expect(await stage.ask(one, { ref })).toEqual({ agent: null });
  });

  test('has an id of at most 255 characters', async () => {
    expect(await stage.ask(one, { ref: 'x'.repeat(255) })).toEqual({ agent: null });
    const { answer } = await stage.post({ query: one, variables: { ref: 'x'.repeat(256) } });
    expect(answer.errors?.[0]).toMatchObject({ extensions: { code: 'BAD_USER_INPUT' } });
    expect(answer.errors?.[0]?.message).toContain('agentId');
  });
});

describe('events', () => {
  test('come oldest first, and page both ways', async () => {
    const all = await storedIds({ agentId: 'zulu', kinds: ['ANOMALIES', 'THREATS', 'PROCESSES', 'LOGS'] });
    expect(all).toEqual(sent);
    const start = await eventsWith({ agentId: 'zulu', kinds: ['ANOMALIES'], first: 2 });
    expect(start.nodes.map((node) => node.messageId)).toEqual([sent[0], sent[4]]);
    expect(start.pageInfo).toMatchObject({ hasNextPage: true, endCursor: start.nodes[1]?.cursor });
    const rest = await eventsWith({ agentId: 'zulu', kinds: ['ANOMALIES'], after: start.pageInfo.endCursor });
    expect(rest.nodes.map((node) => node.messageId)).toEqual([sent[5]]);
    const end = await eventsWith({ agentId: 'zulu', kinds: ['ANOMALIES'], last: 1 });
    expect(end.nodes.map((node) => node.messageId)).toEqual([sent[5]]);
    const before = await eventsWith({
      agentId: 'zulu',
      kinds: ['ANOMALIES'],
      last: 1,
      before: end.pageInfo.startCursor,
    });
    expect(before.nodes.map((node) => node.messageId)).toEqual([sent[4]]);
  });

  test('can be filtered by the least severity', async () => {
    expect(await storedIds({ agentId: 'zulu', minSeverity: 'MEDIUM' })).toEqual([sent[0], sent[1]]);
    expect(await storedIds({ agentId: 'zulu', minSeverity: 'LOW', kinds: ['ANOMALIES'] })).toEqual([sent[0], sent[4]]);
    expect(await storedIds({ agentId: 'alpha', first: 500 })).toEqual([]);
  });

  test('of an agent that there is not are an error', async () => {
    expect(await stage.codesOf(eventsPage, { agentId: 'nobody' })).toEqual(['AGENT_NOT_FOUND']);
  });

  test('have their typed fields', async () => {
    const query = `{ events(agentId: "zulu", kinds: [ANOMALIES, THREATS, PROCESSES, LOGS]) { nodes {
      __typename agentId channel kind trusted sealed payload agent { agentId }
      ... on AnomalyEvent { type severity message }
      ... on ThreatEvent { threatType: type severity description indicators { type value confidence severity source } }
      ... on ProcessEvent { action pid name path user }
    } } }`;
    expect(await stage.ask(query)).toMatchObject({
      events: {
        nodes: [
          {
            __typename: 'AnomalyEvent',
            agentId: 'zulu',
            agent: { agentId: 'zulu' },
            channel: 'agent.zulu.anomalies',
            kind: 'ANOMALIES',
            trusted: true,
            sealed: false,
            payload: { type: 'beaconing', severity: 'WARN', message: 'beacon' },
            type: 'beaconing',
            severity: 'MEDIUM',
          },
          {
            __typename: 'ThreatEvent',
            threatType: 'c2',
            severity: 'CRITICAL',
            description: null,
            indicators: [{ type: 'ip', value: '203.0.113.7', confidence: 0.9, severity: 'UNKNOWN', source: null }],
          },
          { __typename: 'ProcessEvent', action: 'exec', pid: 4242, name: 'curl', user: 'www-data' },
          { __typename: 'GenericEvent', kind: 'LOGS' },
          { __typename: 'AnomalyEvent', severity: 'LOW', message: null },
          { __typename: 'AnomalyEvent', type: '17', severity: 'UNKNOWN' },
        ],
      },
    });
  });
});

describe('node', () => {
  const node = 'query ($id: ID!) { node(id: $id) { __typename id } }';

  test('finds agents, events, messages and broadcasts by their ids', async () => {
    const found = await stage.ask(`{ agent(agentId: "alpha") { id } events(first: 1) { nodes { __typename id } } }`);
    const sentMessage = await stage.ask(
      'mutation { sendMessage(input: {agentId: "alpha", channel: TESTS, payload: 1}) { message { id } } broadcast(input: {channel: TESTS, payload: 1, filter: {agentIds: ["bravo"]}}) { broadcast { id } } }',
    );
    const ids = JSON.stringify([found, sentMessage]).match(/(?<="id":")[^"]+/g) ?? [];
    expect(ids).toHaveLength(4);
    for (const id of ids) {
      expect(id).toMatch(/^[\w-]+$/);
      const typeName = Buffer.from(id, 'base64url').toString().split(':')[0];
      expect(await stage.ask(node, { id })).toEqual({ node: { __typename: typeName, id } });
    }
  });

  test('takes plain UUIDs', async () => {
    const { agent } = z
      .object({ agent: z.object({ uid: z.string() }) })
      .parse(await stage.ask('{ agent(agentId: "alpha") { uid } }'));
    expect(await stage.ask(node, { id: agent.uid })).toMatchObject({ node: { __typename: 'Agent' } });
    expect(await stage.ask(node, { id: agent.uid.toUpperCase() })).toMatchObject({ node: { __typename: 'Agent' } });
  });

  test('is null for what names nothing', async () => {
    const encoded = (text: string) => Buffer.from(text).toString('base64url');
    const ids = [
      '',
      'x',
      encoded('Agent:x'),
      encoded('AnomalyEvent:0'),
      encoded('AnomalyEvent:99999999999999999'),
      encoded('AnomalyEvent:1e3'),
      encoded('Query:1'),
      '3b241101-e2bb-4255-8caf-4136c566a962',
    ];
    for (const id of ids) expect(await stage.ask(node, { id })).toEqual({ node: null });
  });

  test('is null for an event under the name of another type', async () => {
    const { events } = z
      .object({ events: z.object({ nodes: z.array(z.object({ id: z.string() })) }) })
      .parse(await stage.ask('{ events(kinds: [THREATS], last: 1) { nodes { id } } }'));
    const position = Buffer.from(events.nodes[0]?.id ?? '', 'base64url')
      .toString()
      .split(':')[1];
    const forged = Buffer.from(`AnomalyEvent:${position}`).toString('base64url');
    expect(await stage.ask(node, { id: forged })).toEqual({ node: null });
  });
});

describe('statements', () => {
  const everything = `query ($first: Int) { agents(first: $first) { totalCount nodes {
    agentId labels channels session { protocol gatewayInstance }
    events(last: 2) { nodes { kind agent { agentId } } }
    messages(first: 2) { totalCount nodes { status agent { uid } broadcast { progress { targets } } replies { kind } } }
  } } }`;
  /** Others than the consumers' run as well, heartbeats, leases, polls: the fewest of several times are those without them. */
  const statementsOf = async (query: string, variables: Record<string, unknown>) => {
    const times: string[][] = [];
    await stage.ask(query, variables);
    for (let left = 5; left > 0; left--) {
      stage.gateway.statements.length = 0;
      await stage.ask(query, variables);
      times.push([...stage.gateway.statements]);
    }
    return times.reduce((fewest, each) => (each.length < fewest.length ? each : fewest));
  };

  test('are as many for six agents as for two', async () => {
    await stage.ask('mutation { broadcast(input: {channel: TESTS, payload: 1}) { broadcast { id } } }');
    const two = await statementsOf(everything, { first: 2 });
    const six = await statementsOf(everything, { first: 6 });
    expect(six.length).toBeLessThanOrEqual(two.length + 1);
    expect(six.length).toBeLessThanOrEqual(12);
  });

  test('are not made for what is not asked for', async () => {
    const counting = await statementsOf('{ agents { totalCount } }', {});
    const listing = await statementsOf('{ agents { nodes { uid } } }', {});
    expect(counting.some((text) => text.includes('count(*)'))).toBe(true);
    expect(listing.some((text) => text.includes('count(*)'))).toBe(false);
    expect(counting.length).toBe(1);
    const paging = await statementsOf(
      '{ agents { nodes { uid } edges { cursor } pageInfo { hasNextPage endCursor } } }',
      {},
    );
    expect(paging.length).toBe(1);
    expect(listing.length).toBe(1);
  });
});

test('the gateway tells of itself', async () => {
  const query =
    '{ gateway { version instance instances connectedAgents agentsAwaitingApproval v1: connectedAgentsByProtocol(protocol: V1) v2: connectedAgentsByProtocol(protocol: V2) } }';
  const { gateway } = z
    .object({
      gateway: z.object({
        version: z.string(),
        instance: z.string(),
        instances: z.array(z.string()),
        connectedAgents: z.literal(6),
        agentsAwaitingApproval: z.literal(0),
        v1: z.literal(6),
        v2: z.literal(0),
      }),
    })
    .parse(await stage.ask(query));
  expect(gateway.instances).toEqual([gateway.instance]);
});
