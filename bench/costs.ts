import { parseArgs } from 'node:util';
import postgres from 'postgres';
import { z } from 'zod';
import { findDatabases } from './database.ts';
import { connect, withGenerator } from './generator.ts';
import { type GuardName, titleOf, without } from './guards.ts';
import { delivered } from './load/protocol.ts';
import { type AskedRequest, askAll } from './load/requests.ts';
import { readOptions } from './options.ts';
import { endAllPrograms, processorSeconds } from './processes.ts';
import { machineFacts } from './report.ts';
import { type GatewayServer, gateway } from './servers.ts';
import { median } from './statistics.ts';

// What permissions, limits and the audit log cost (docs/PERFORMANCE.md): two gateways, one with all of it and one without
// something, both of them new, are under load in turns, A B B A A B …, and then two others, since no two processes of the same
// code are equally fast. `npm run build` first; wants a real Postgres on this machine.
//
//   npx tsx bench/costs.ts [--only events,query,rest,send] [--guards 'all,audit log,rate limits,…'] [--rounds N] [--pairs N]

const scenarioNames = ['events', 'query', 'rest', 'send'] as const;
type ScenarioName = (typeof scenarioNames)[number];

const titles: Readonly<Record<ScenarioName, string>> = {
  events: 'events of 100 agents to one subscriber',
  query: 'GraphQL: 50 agents',
  rest: 'REST: an agent',
  send: 'GraphQL: `sendMessage`',
};
const guarded: Readonly<Record<ScenarioName, readonly GuardName[]>> = {
  events: ['allowances'],
  query: ['document limits', 'rate limits', 'permissions', 'organisations'],
  rest: ['rate limits', 'permissions', 'organisations'],
  send: ['audit log', 'document limits', 'rate limits', 'permissions', 'organisations'],
};
const guardNames = [...new Set(Object.values(guarded).flat())];
/** What decides whether, and how much; the audit log keeps what was done, which is more than a change without it does. */
const permissionsAndLimits = guardNames.filter((name) => name !== 'audit log');

const storedAgents = 1_000;
/** Enough of each for two or three seconds on a quiet machine; so many twice beforehand, for the compiler and the caches. */
const burst: Readonly<Record<ScenarioName, number>> = { events: 12_000, query: 400, rest: 4_000, send: 2_000 };
const requestsAtOnce = 32;

interface Burst {
  readonly perSecond: number;
  readonly gatewayUs: number;
  readonly postgresUs: number;
}

interface Pair<T> {
  readonly whole: T;
  readonly bare: T;
}

/** A gateway with agents in its database, and how each scenario is played on it. */
interface Side {
  play(): Promise<void>;
  measure(): Promise<Burst>;
  end(): Promise<void>;
}

const { values: options } = parseArgs({
  options: {
    only: { type: 'string', default: scenarioNames.join(',') },
    guards: { type: 'string', default: 'all,audit log' },
    rounds: { type: 'string', default: '5' },
    pairs: { type: 'string', default: '4' },
  },
});
const only = scenarioNames.filter((name) => options.only.split(',').includes(name));
const wanted = options.guards.split(',');
const rounds = Number(options.rounds);
const pairs = Number(options.pairs);
const databases = await findDatabases({ embedded: false });

async function main(): Promise<void> {
  const header = ['', 'without', '1/s', 'ratio', 'µs of the gateway', 'ratio', 'µs of Postgres', 'ratio'];
  console.log(`${machineFacts(databases.description)}; ${rounds} times ${pairs} pairs.\n\n| ${header.join(' | ')} |`);
  console.log(`| --- | --- |${' --: |'.repeat(6)}`);
  const variants = [
    ...(wanted.includes('all') ? [permissionsAndLimits] : []),
    ...guardNames.filter((name) => wanted.includes(name)).map((name) => [name]),
  ];
  for (const names of variants) {
    const scenarios = only.filter((scenario) => guarded[scenario].some((name) => names.includes(name)));
    const bursts = scenarios.map((): Pair<Burst>[] => []);
    for (let round = 0; round < rounds && scenarios.length > 0; round++)
      await withBoth(names, round % 2 === 0, async (servers) => {
        for (const [index, scenario] of scenarios.entries()) bursts[index]?.push(...(await compare(scenario, servers)));
      });
    for (const [index, scenario] of scenarios.entries()) {
      const cells = (['perSecond', 'gatewayUs', 'postgresUs'] as const).flatMap((value) => [
        median((bursts[index] ?? []).map(({ whole }) => whole[value])).toFixed(0),
        `**${median((bursts[index] ?? []).map(({ whole, bare }) => whole[value] / bare[value])).toFixed(2)}**`,
      ]);
      console.log(`| ${[titles[scenario], titleOf(names), ...cells].join(' | ')} |`);
    }
  }
}

/** Two new gateways on new databases, the whole one and one without these, the one or the other started first. */
async function withBoth(
  names: readonly GuardName[],
  wholeFirst: boolean,
  use: (servers: Pair<GatewayServer>) => Promise<void>,
): Promise<void> {
  const first = await gateway(databases, without(wholeFirst ? [] : names)).start();
  try {
    const second = await gateway(databases, without(wholeFirst ? names : [])).start();
    try {
      for (const server of [first, second]) await store(server);
      await use(wholeFirst ? { whole: first, bare: second } : { whole: second, bare: first });
    } finally {
      await second.stop();
    }
  } finally {
    await first.stop();
  }
}

async function compare(scenario: ScenarioName, servers: Pair<GatewayServer>): Promise<Pair<Burst>[]> {
  const sides = { whole: await sideOf(scenario, servers.whole), bare: await sideOf(scenario, servers.bare) };
  try {
    for (const side of [sides.whole, sides.bare, sides.whole, sides.bare]) await side.play();
    for (const server of [servers.whole, servers.bare]) await settle(server);
    const bursts: Pair<Burst>[] = [];
    for (let pair = 0; pair < pairs; pair++) {
      if (pair % 2 === 0) {
        const whole = await sides.whole.measure();
        bursts.push({ whole, bare: await sides.bare.measure() });
      } else {
        const bare = await sides.bare.measure();
        bursts.push({ whole: await sides.whole.measure(), bare });
      }
    }
    return bursts;
  } finally {
    await sides.whole.end();
    await sides.bare.end();
  }
}

async function sideOf(scenario: ScenarioName, server: GatewayServer): Promise<Side> {
  const sql = connectTo(server);
  const backends = async () => {
    const rows = await sql<{ pid: number }[]>`
      select pid from pg_stat_activity where datname = current_database() and application_name = 'aegis-gateway'`;
    return new Map(rows.map(({ pid }) => [pid, processorSeconds(pid)]));
  };
  const { play, end } = await (scenario === 'events' ? eventsOf(server) : requestsOf(scenario, server, sql));
  return {
    play,
    async measure() {
      const backendsBefore = await backends();
      const gatewayBefore = processorSeconds(server.pid);
      const startedMs = performance.now();
      await play();
      const count = burst[scenario];
      const seconds = (performance.now() - startedMs) / 1_000;
      const gatewayUs = (1e6 * (processorSeconds(server.pid) - gatewayBefore)) / count;
      let postgresSeconds = 0;
      for (const [pid, used] of await backends()) postgresSeconds += used - (backendsBefore.get(pid) ?? 0);
      return { perSecond: count / seconds, gatewayUs, postgresUs: (1e6 * postgresSeconds) / count };
    },
    async end() {
      await sql.end();
      await end();
    },
  };
}

async function eventsOf(server: GatewayServer): Promise<Pick<Side, 'play' | 'end'>> {
  const sizes = readOptions([])?.sizes;
  if (!sizes) throw new Error('there are no sizes');
  let release = () => {};
  const released = new Promise<void>((resolve) => {
    release = resolve;
  });
  return new Promise<Pick<Side, 'play' | 'end'>>((resolve, reject) => {
    const ended = withGenerator(async (generator) => {
      await connect(generator, server, sizes.agents, sizes);
      resolve({
        async play() {
          const order = { target: server.target, events: burst.events, perSecond: null, spreadSeconds: false };
          const { lost, duplicated } = await generator.order({ do: 'send events', ...order }, delivered);
          if (lost + duplicated > 0) throw new Error('events were lost or came twice');
        },
        async end() {
          release();
          await ended;
        },
      });
      await released;
    });
    ended.catch(reject);
  });
}

async function requestsOf(
  scenario: Exclude<ScenarioName, 'events'>,
  server: GatewayServer,
  sql: postgres.Sql,
): Promise<Pick<Side, 'play' | 'end'>> {
  const uids = (await sql<{ uid: string }[]>`select uid from agents order by name limit ${storedAgents}`).map(
    ({ uid }) => uid,
  );
  const token = await keyOf(server);
  const agentFields = 'id uid agentId hostname labels enrollment connected lastSeenAt channels';
  const requests: Readonly<Record<typeof scenario, AskedRequest>> = {
    query: {
      ...{ method: 'POST', path: '/graphql', token },
      body: () => ({
        query: `query ($first: Int) { agents(first: $first) { nodes { ${agentFields} } pageInfo { hasNextPage } } }`,
        variables: { first: 50 },
      }),
    },
    rest: { method: 'GET', path: `/api/v1/agents/${uids[0]}/status`, token },
    send: {
      ...{ method: 'POST', path: '/graphql', token },
      body: (number) => ({
        query: 'mutation ($input: SendMessageInput!) { sendMessage(input: $input) { message { id } } }',
        variables: {
          input: { agentId: uids[number % uids.length], channel: 'POLICIES', payload: { text: 'x'.repeat(300) } },
        },
      }),
    },
  };
  return {
    play: () => askAll(server.origin, requests[scenario], { count: burst[scenario], atOnce: requestsAtOnce }),
    end: async () => {},
  };
}

/** Agents that have been here, and are away. */
async function store(server: GatewayServer): Promise<void> {
  const sql = connectTo(server);
  await sql`
    insert into agents (org_id, name, enrollment, public_key, key_fingerprint, dialect, epoch)
    select 'default-org', 'away-' || lpad(i::text, 6, '0'), 'approved', i, i, 'enveloped', 1 from generate_series(1, ${storedAgents}) i`;
  await sql`
    insert into communication_channels (agent_id, agent_org_id, channel_name, channel_type)
    select uid::text, org_id, 'backend.' || uid || '.' || kind, 'backend_to_agent'
    from agents, unnest('{policies,investigations,threats,processes,tests,rollbacks}'::text[]) kind`;
  // What Postgres does by itself it does to one of the two at a time: `settle` does it to both instead.
  for (const table of ['message_queue', 'audit_pending', 'audit_entries'])
    await sql`alter table ${sql(table)} set (autovacuum_enabled = off)`;
  await sql`vacuum analyze agents, communication_channels`;
  await sql.end();
}

/** What the first requests left behind is cleared up, and counted for the planner. */
async function settle(server: GatewayServer): Promise<void> {
  const sql = connectTo(server);
  await sql`vacuum analyze`;
  await sql.end();
}

function connectTo({ databaseUrl }: GatewayServer): postgres.Sql {
  if (databaseUrl === null) throw new Error('a real Postgres is needed');
  return postgres(databaseUrl, { max: 1, onnotice: () => {} });
}

/** An API key of one organisation, which is what most consumers have. */
async function keyOf({ origin, token }: GatewayServer): Promise<string> {
  const response = await fetch(`${origin}/graphql`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', authorization: `Bearer ${token}` },
    body: JSON.stringify({
      query:
        'mutation { createApiKey(input: { name: "bench", scopes: ["agents:read", "messages:send", "messages:read"] }) { key } }',
    }),
  });
  const answer = z
    .object({ data: z.object({ createApiKey: z.object({ key: z.string() }) }) })
    .parse(await response.json());
  return answer.data.createApiKey.key;
}

for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, endAllPrograms);
await main();
