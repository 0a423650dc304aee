import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { startV1Agent } from '../../src/agent-client/index.ts';
import { allEntries } from '../../src/audit/auditing.ts';
import { createTestDatabase, hasPostgres, onServer } from '../support/databases.ts';
import { eventually } from '../support/eventually.ts';
import { run, scratchFolder } from './command-line.ts';

const timeout = 60_000;

async function printed(args: readonly string[], env: Readonly<Record<string, string>>): Promise<string> {
  const command = run(args, env);
  expect([await command.ended, command.stderr]).toEqual([0, '']);
  return command.stdout;
}

const keysIn = (output: string) => ({
  current: /^current {2}(\w{64})$/m.exec(output)?.[1],
  next: /^next {5}(\w+)$/m.exec(output)?.[1],
});

describe('keys', { timeout }, () => {
  it('rotates the key of a gateway that runs, at SIGHUP and without touching a link', async () => {
    const database = await createTestDatabase();
    const env: Record<string, string> = {
      WEBSOCKET_PORT: '0',
      DATA_DIR: join(scratchFolder(), 'data'),
      LOG_LEVEL: 'info',
    };
    const token = 'a-token-of-the-operator';
    const serve = run(['serve'], {
      ...env,
      ADMIN_TOKEN: token,
      ...(database.databaseUrl ? { DATABASE_URL: database.databaseUrl } : {}),
    });
    const [, url = ''] = await serve.printed(/^ {2}GraphQL +(\S+)\/graphql [\s\S]*^ {2}Database .*\n/m);
    const agent = startV1Agent({ url: `${url.replace(/^http/, 'ws')}/ws/agent`, agentId: 'host-1' });
    await agent.ready();
    const ask = async (query: string) => {
      const response = await fetch(`${url}/graphql`, {
        method: 'POST',
        headers: { 'content-type': 'application/json', authorization: `Bearer ${token}` },
        body: JSON.stringify({ query }),
      });
      return response.text();
    };
    const shown = () => ask('{ gateway { keys { current next } } }');
    const session = () => ask('{ agent(agentId: "host-1") { connected session { connectedAt } } }');
    const before = await session();
    const untilShown = (current: string | undefined, next: string | null | undefined) =>
      eventually(async () => (await shown()) === JSON.stringify({ data: { gateway: { keys: { current, next } } } }));

    const first = keysIn(await printed(['keys'], env));
    expect(first.next).toBe('none');
    await untilShown(first.current, null);
    const prepared = keysIn(await printed(['keys', 'prepare'], env));
    expect(prepared.current).toBe(first.current);
    await untilShown(first.current, null);
    serve.kill('SIGHUP');
    await untilShown(first.current, prepared.next);
    expect(keysIn(await printed(['keys', 'rotate'], env))).toEqual({ current: prepared.next, next: 'none' });
    serve.kill('SIGHUP');
    await untilShown(prepared.next, null);

    expect(before).toContain('"connected":true');
    expect(await session()).toBe(before);
    expect(serve.stderr).not.toContain('"level":"error"');
    await agent.close();
    serve.kill('SIGTERM');
    expect(await serve.ended).toBe(0);
    await database.drop();
  });

  it.runIf(hasPostgres())(
    'puts on record who prepared and rotated the key, and rotates without a database too',
    async () => {
      const database = await createTestDatabase();
      const env = { DATA_DIR: join(scratchFolder(), 'data') };
      const recording = { ...env, DATABASE_URL: database.databaseUrl ?? '' };
      const prepared = keysIn(await printed(['keys', 'prepare'], recording));
      const rotated = keysIn(await printed(['keys', 'rotate'], recording));
      let entries: readonly unknown[] = [];
      await onServer(database.databaseUrl ?? '', async (sql) => {
        entries = await sql`
        select org_id, actor_kind, action, subject_type, subject_name, details->>'current' as current, details->>'next' as next
        from ${allEntries(sql)} as entry order by id`;
      });
      const common = { org_id: null, actor_kind: 'command-line', subject_type: 'gateway-key' };
      expect(entries).toEqual([
        { ...common, action: 'gateway-key.prepare', subject_name: prepared.current, ...prepared },
        { ...common, action: 'gateway-key.rotate', subject_name: rotated.current, current: prepared.next, next: null },
      ]);
      await database.drop();

      const unrecorded = run(['keys', 'prepare'], recording);
      expect(await unrecorded.ended).toBe(0);
      expect(unrecorded.stderr).toMatch(/^This could not be put on record: .*\n$/);
      expect(keysIn(await printed(['keys'], env))).toEqual(keysIn(unrecorded.stdout));
    },
  );

  it('says in a sentence what cannot be done, and ends with 2', async () => {
    const env = { DATA_DIR: join(scratchFolder(), 'data') };
    const rotate = run(['keys', 'rotate'], env);
    expect(await rotate.ended).toBe(2);
    expect(rotate.stderr).toContain('There is no next key');
    const nonsense = run(['keys', 'nonsense'], env);
    expect(await nonsense.ended).toBe(2);
    expect(nonsense.stderr).toContain('Usage');
  });
});

describe('keys create, list and revoke', { timeout }, () => {
  it('give a consumer access, show it, and take it away', async () => {
    const database = await createTestDatabase();
    const env = {
      DATA_DIR: join(scratchFolder(), 'data'),
      ...(database.databaseUrl ? { DATABASE_URL: database.databaseUrl } : {}),
    };
    const create = run(
      ['keys', 'create', '--name', 'a console', '--scopes', 'agents:read, events:read', '--org', 'acme'],
      env,
    );
    expect(await create.ended).toBe(0);
    expect(create.stdout).toMatch(/^agk_[0-9a-f]{12}_[\w-]{43}\n$/);
    const [, id = ''] =
      /^agents:read, events:read in acme, without an end; id ([0-9a-f-]{36}):$/m.exec(create.stderr) ?? [];
    const prefix = create.stdout.slice(0, 16);
    const line = (state: string) =>
      `${id}  ${prefix}  ${state}  acme  agents:read,events:read  expires never  used never  "a console"\n`;
    expect(await printed(['keys', 'list'], env)).toBe(line('usable '));
    expect(await printed(['keys', 'revoke', id], env)).toBe(line('revoked'));
    await database.drop();
  });

  it.each([
    [['keys', 'create'], '--name: must be given\n--scopes: must be given\n'],
    [['keys', 'create', '--name', 'n', '--scopes', 'everything'], '`scopes` must be one or more of agents:read'],
    [['keys', 'create', '--name', 'n', '--scopes', 'admin', '--expires-in', 'x'], '--expires-in: must be a number'],
    [['keys', 'revoke'], 'Usage: aegis-gateway keys'],
  ])('say in a sentence what cannot be done: %j', async (args, sentence) => {
    const command = run(args, { DATA_DIR: 'memory' });
    expect(await command.ended).toBe(2);
    expect(command.stderr).toContain(sentence);
    expect(command.stdout).toBe('');
  });
});

describe('tokens create', { timeout }, () => {
  it('writes the token to standard output, and what it is good for beside it', async () => {
    const database = await createTestDatabase();
    const env = {
      DATA_DIR: join(scratchFolder(), 'data'),
      ...(database.databaseUrl ? { DATABASE_URL: database.databaseUrl } : {}),
    };
    const command = run(['tokens', 'create', '--org', 'acme', '--agent', 'db-7', '--expires-in', '600'], env);
    expect(await command.ended).toBe(0);
    expect(command.stdout).toMatch(/^enr_[\w-]{43}\n$/);
    expect(command.stderr).toContain('For the agent db-7 of acme, until ');
    await database.drop();
  });

  it('refuses what is out of bounds, by its name', async () => {
    const command = run(['tokens', 'create', '--expires-in', '0', '--agent', '']);
    expect(await command.ended).toBe(2);
    expect(command.stderr).toMatch(/^--agent: .*\n--expires-in: /);
  });
});
