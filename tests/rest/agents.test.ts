import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { z } from 'zod';
import { type Call, plainError } from './rest-caller.ts';
import { register, registrant } from './rest-registrant.ts';
import { type RestUnderTest, startRest } from './rest-under-test.ts';

const rfc3339 = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$/;

const listed = {
  agent_uid: z.uuid(),
  org_id: z.string(),
  host_id: z.string(),
  hostname: z.string().optional(),
  machine_id_hash: z.string().optional(),
  agent_version: z.string().optional(),
  platform: z.json().optional(),
  network: z.json().optional(),
  labels: z.array(z.string()),
  note: z.string().optional(),
  created: z.string().regex(rfc3339),
  last_seen: z.string().regex(rfc3339),
};
const listSchema = z.strictObject({ agents: z.array(z.strictObject(listed)), total: z.int() });
const agentSchema = z.strictObject({ ...listed, capabilities: z.json().optional() });

const fullFacts = {
  machine_id_hash: 'hash-7',
  agent_version: '1.2.3',
  capabilities: { isolate: true },
  platform: { os: 'linux', hostname: 'web.example.net' },
  network: { interfaces: [{ name: 'eth0', addresses: ['192.0.2.7/24', '2001:db8::7'] }] },
};

let rest: RestUnderTest;
let call: Call;
let full: string;
let bare: string;

beforeAll(async () => {
  rest = await startRest();
  call = rest.call;
  full = (await register(call, registrant('web.prod.example.net', fullFacts))).agent_uid;
  bare = (await register(call, registrant('bare host/1%'))).agent_uid;
});
afterAll(() => rest.close());

async function hostsIn(path: string): Promise<string[]> {
  const { agents, total } = listSchema.parse((await call('GET', path)).json);
  expect(total).toBe(agents.length);
  return agents.map(({ host_id }) => host_id);
}

describe('GET /agents', () => {
  it('lists all agents by name', async () => {
    const answer = await call('GET', '/agents');
    expect(answer).toMatchObject({ status: 200, contentType: 'application/json' });
    expect(await hostsIn('/agents')).toEqual(['bare host/1%', 'web.prod.example.net']);
  });

  it('answers an empty list, not null, where none match', async () => {
    expect((await call('GET', '/agents?label=no-such-label')).json).toEqual({ agents: [], total: 0 });
  });

  it('shows what an agent told of itself, but not its capabilities', async () => {
    const { agents } = listSchema.parse((await call('GET', '/agents?host_id=web.prod.example.net')).json);
    const { capabilities: _, ...shown } = fullFacts;
    expect(agents).toEqual([expect.objectContaining({ ...shown, agent_uid: full, hostname: 'web.example.net' })]);
  });

  it('leaves out what is not known', async () => {
    const { agents } = listSchema.parse(
      (await call('GET', `/agents?host_id=${encodeURIComponent('bare host/1%')}`)).json,
    );
    expect(agents.map((agent) => Object.keys(agent).sort())).toEqual([
      ['agent_uid', 'created', 'host_id', 'labels', 'last_seen', 'org_id'],
    ]);
    expect(agents[0]?.last_seen).toBe(agents[0]?.created);
    expect(agents[0]?.org_id).toBe('default-org');
  });

  it.each([
    ['hostname=web.example.net', true],
    ['hostname=web', false],
    ['hostname=web.prod.example.net', false],
    ['host_id=web.prod.example.net', true],
    ['host_id=web', false],
    ['ip=2001:db8::7', true],
    ['ip=192.0.2.7', true],
    ['ip=192.0.2', false],
    ['ip=eth', false],
    ['ip=eth0%27%20or%201=1', false],
    ['hostname=web.example.net&ip=192.0.2.7&host_id=web.prod.example.net', true],
    ['hostname=web.example.net&ip=192.0.2.8', false],
    ['label=&hostname=web.example.net&host_id=&ip=', true],
  ])('with ?%s finds the full agent: %s', async (query, found) => {
    expect(await hostsIn(`/agents?${query}`)).toEqual(found ? ['web.prod.example.net'] : []);
  });

  it('takes a repeated label for every one of these', async () => {
    await call('PUT', `/agents/${full}/labels`, { body: { add: ['edge', 'prod & eu'] } });
    await call('PUT', `/agents/${bare}/labels`, { body: { add: ['edge'] } });
    expect(await hostsIn('/agents?label=edge')).toHaveLength(2);
    expect(await hostsIn('/agents?label=edge&label=prod%20%26%20eu')).toEqual(['web.prod.example.net']);
    expect(await hostsIn('/agents?label=edge&label=absent')).toEqual([]);
    expect(await hostsIn('/agents?label=&label=')).toHaveLength(2);
  });

  it.each(['label=a%00b', 'hostname=a%0ab', `ip=${'1'.repeat(256)}`, 'host_id=a&host_id=b'])(
    'refuses a condition that nothing can meet: %s',
    async (query) => {
      expect(await call('GET', `/agents?${query}`)).toMatchObject({
        status: 400,
        contentType: 'text/plain; charset=utf-8',
      });
    },
  );
});

describe('GET /agents/{uid}', () => {
  it('shows the agent with its capabilities', async () => {
    const answer = await call('GET', `/agents/${full}`);
    expect(answer).toMatchObject({ status: 200, contentType: 'application/json' });
    expect(agentSchema.parse(answer.json)).toMatchObject({ agent_uid: full, ...fullFacts });
  });

  it('takes the uid in capitals and the name, dots, slashes and percent signs among it', async () => {
    for (const ref of [full, full.toUpperCase(), 'web.prod.example.net'])
      expect((await call('GET', `/agents/${ref}`)).json).toMatchObject({ agent_uid: full });
    for (const ref of [bare, encodeURIComponent('bare host/1%')])
      expect((await call('GET', `/agents/${ref}`)).json).toMatchObject({ agent_uid: bare });
  });

  it.each([
    'nobody',
    '00000000-0000-4000-8000-000000000000',
    'a%00b',
    'a%0ab',
    '%ff',
    '%ed%a0%80',
    'x'.repeat(256),
    '%27%3B--',
    'web%2Eprod',
  ])('answers 404 `Agent not found` for %s', async (ref) => {
    expect(await call('GET', `/agents/${ref}`)).toMatchObject(plainError(404, 'Agent not found'));
  });

  it('asks for the uid where several organisations use the name and the default one does not', async () => {
    const { agent_uid } = await register(call, registrant('shared', { org_id: 'org-1' }));
    await register(call, registrant('shared', { org_id: 'org-2' }));
    const answer = await call('GET', '/agents/shared');
    expect(answer).toMatchObject(plainError(409, 'Several agents have this name; use the uid'));
    expect((await call('GET', `/agents/${agent_uid}`)).json).toMatchObject({ org_id: 'org-1' });
  });
});

describe('PUT /agents/{uid}/labels', () => {
  it('adds and takes away, each label once, and answers what there is then', async () => {
    const { agent_uid } = await register(call, registrant('labelled'));
    const put = (body: unknown) => call('PUT', '/agents/labelled/labels', { body });
    expect(await put({ add: ['b', 'a', 'a'] })).toMatchObject({ status: 200, contentType: 'application/json' });
    expect((await put({ add: ['c'], remove: ['b', 'absent'] })).json).toEqual({ agent_uid, labels: ['a', 'c'] });
    expect((await put({})).json).toEqual({ agent_uid, labels: ['a', 'c'] });
    expect((await put({ add: null, remove: ['a', 'c'] })).json).toEqual({ agent_uid, labels: [] });
  });

  it.each(['', '{', 'null', '[]', '{"add":"a"}', '{"add":[7]}', '{"remove":{"a":1}}'])(
    'answers 400 `Invalid JSON` to %s',
    async (body) => {
      expect(await call('PUT', `/agents/${full}/labels`, { body })).toMatchObject(plainError(400, 'Invalid JSON'));
    },
  );

  it('takes a label of 100 characters, and none empty, longer or with a control character', async () => {
    const add = (label: string) => call('PUT', `/agents/${bare}/labels`, { body: { add: [label] } });
    expect(await add('l'.repeat(100))).toMatchObject({ status: 200 });
    for (const label of ['', 'l'.repeat(101), 'a\tb', 'a\u0000b'])
      expect(await add(label)).toMatchObject({ status: 400, contentType: 'text/plain; charset=utf-8' });
  });

  it('takes 64 labels at once, and not one more', async () => {
    const labels = (count: number) => Array.from({ length: count }, (_, index) => `many-${index}`);
    const put = (change: object) => call('PUT', `/agents/${bare}/labels`, { body: change });
    expect(await put({ add: labels(64) })).toMatchObject({ status: 200 });
    expect(await put({ remove: labels(64) })).toMatchObject({ status: 200 });
    for (const change of [{ add: labels(65) }, { remove: labels(65) }])
      expect(await put(change)).toMatchObject({ status: 400, contentType: 'text/plain; charset=utf-8' });
  });

  it('answers 404 `Agent not found` for nobody', async () => {
    const answer = await call('PUT', '/agents/nobody/labels', { body: { add: ['a'] } });
    expect(answer).toMatchObject(plainError(404, 'Agent not found'));
  });
});

describe('PUT /agents/{uid}/note', () => {
  it('sets the note, which the agent shows from then on', async () => {
    const note = 'Rack 7, "left"\nask Zoë 😀';
    const answer = await call('PUT', '/agents/web.prod.example.net/note', { body: { note } });
    expect(answer).toMatchObject({ status: 200, contentType: 'application/json', json: { agent_uid: full, note } });
    expect((await call('GET', `/agents/${full}`)).json).toMatchObject({ note });
  });

  it('takes an empty note', async () => {
    const answer = await call('PUT', `/agents/${bare}/note`, { body: { note: '' } });
    expect(answer.json).toEqual({ agent_uid: bare, note: '' });
  });

  it.each(['', '{', '{}', '[]', '{"note":7}', '{"note":null}'])('answers 400 `Invalid JSON` to %s', async (body) => {
    expect(await call('PUT', `/agents/${full}/note`, { body })).toMatchObject(plainError(400, 'Invalid JSON'));
  });

  it('takes 10,000 characters, and not one more', async () => {
    const put = (length: number) => call('PUT', `/agents/${bare}/note`, { body: { note: 'n'.repeat(length) } });
    expect(await put(10_000)).toMatchObject({ status: 200 });
    expect(await put(10_001)).toMatchObject({ status: 400, contentType: 'text/plain; charset=utf-8' });
  });

  it('answers 404 `Agent not found` for nobody', async () => {
    const answer = await call('PUT', '/agents/nobody/note', { body: { note: 'a' } });
    expect(answer).toMatchObject(plainError(404, 'Agent not found'));
  });
});

describe('paths under /agents', () => {
  it.each([
    ['GET', '/agents/', 400, 'Agent UID required'],
    ['GET', '/agents//labels', 400, 'Agent UID required'],
    ['GET', '/agents/x/other', 404, 'Invalid endpoint'],
    ['PUT', '/agents/x/other', 404, 'Invalid endpoint'],
    ['GET', '/agents/x/', 404, 'Invalid endpoint'],
    ['GET', '/agents/x/a/b', 404, 'Invalid path'],
    ['PUT', '/agents/x/labels/', 404, 'Invalid path'],
    ['POST', '/agents', 405, 'Method not allowed'],
    ['DELETE', '/agents/x', 405, 'Method not allowed'],
    ['PUT', '/agents/x', 405, 'Method not allowed'],
    ['GET', '/agents/x/labels', 405, 'Method not allowed'],
    ['POST', '/agents/x/note', 405, 'Method not allowed'],
    ['PATCH', '/agents/x/note', 405, 'Method not allowed'],
  ])('%s %s answers %i `%s`', async (method, path, status, text) => {
    expect(await call(method, path)).toMatchObject(plainError(status, text));
  });
});
