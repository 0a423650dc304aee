import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import { maxChannelLength } from '../src/agent-gateway/wire/channels.ts';
import { maxJsonDepth } from '../src/agent-gateway/wire/text.ts';
import { maxIdentityBytes } from '../src/agent-gateway/wire/v2-identity.ts';
import {
  defaultSessionLimits,
  handshakeTimeoutMs,
  maxHandshakeFrameLength,
  maxRecordsPerGeneration,
  v2CloseCodes,
} from '../src/agent-gateway/wire/v2-limits.ts';
import { maxAcknowledgedIds } from '../src/agent-gateway/wire/v2-message.ts';
import { recordOverheadBytes } from '../src/agent-gateway/wire/v2-record.ts';
import { auditedActionNames } from '../src/audit/actions.ts';
import { type Config, readConfig, variableNames } from '../src/config.ts';
import { maxAliases, maxDirectives, maxIntrospectionDepth, maxRepeatedFields } from '../src/http/document-limits.ts';
import {
  maxDocumentCharacters,
  maxDocumentTokens,
  maxRequestBytes,
  maxSubscriptionCharacters,
} from '../src/http/graphql-execution.ts';
import { maxIdCharacters, maxSocketOperations } from '../src/http/graphql-socket.ts';
import { defaultPageSize, maxPageSize } from '../src/paging.ts';
import { createMetrics } from '../src/telemetry/metrics.ts';

const root = fileURLToPath(new URL('..', import.meta.url));

function page(path: string): string {
  return readFileSync(join(root, path), 'utf8');
}

/** The rows of a page's tables whose first cell is a name in backquotes, each as its cells. */
function namedRows(markdown: string): { name: string; cells: string[] }[] {
  return markdown.split('\n').flatMap((line) => {
    const [, name, rest] = /^\| `([\w-]+)` \|(.*)\|$/.exec(line) ?? [];
    return name === undefined || rest === undefined
      ? []
      : [{ name, cells: rest.split('|').map((cell) => cell.trim()) }];
  });
}

/** The text in a cell's backquotes; null where there is none. */
function quoted(cell: string | undefined): string | null {
  return /^`([^`]+)`$/.exec(cell ?? '')?.[1] ?? null;
}

describe('docs/CONFIGURATION.md', () => {
  const rows = namedRows(page('docs/CONFIGURATION.md'));
  const defaults = rows.flatMap(({ name, cells }) => {
    const value = quoted(cells[0]);
    return value === null ? [] : [{ name, value }];
  });
  const productionDefaults = rows.map(({ name, cells }) => ({ name, value: quoted(cells[1]) ?? quoted(cells[0]) }));

  /** Without what is made anew each time. */
  function settled(env: Readonly<Record<string, string>>): Omit<Config, 'adminToken'> {
    const { adminToken: _, ...config } = readConfig(env);
    return config;
  }

  it('names every variable that is read, each once, and no other', () => {
    expect(rows.map(({ name }) => name).sort()).toEqual([...variableNames].sort());
  });

  it('has a default, or a dash, and a meaning for each', () => {
    for (const { name, cells } of rows) {
      expect([name, cells.length]).toEqual([name, 3]);
      expect(cells[0] === '–' || quoted(cells[0]) !== null, name).toBe(true);
      expect(cells[2], name).not.toBe('');
    }
  });

  it.each(defaults)('tells the default of $name', ({ name, value }) => {
    expect(settled({ [name]: value })).toEqual(settled({}));
  });

  it.each(productionDefaults)('tells the default of $name in production', ({ name, value }) => {
    if (value === null || name === 'NODE_ENV') return;
    const production = { NODE_ENV: 'production' };
    expect(settled({ ...production, [name]: value })).toEqual(settled(production));
  });

  it('says nothing where production has the same default, and something where it has not', () => {
    for (const { name, cells } of rows) {
      const [value, inProduction] = [quoted(cells[0]), quoted(cells[1])];
      if (value === null || name === 'NODE_ENV') continue;
      const config = settled({ NODE_ENV: 'production' });
      const isSame = JSON.stringify(settled({ NODE_ENV: 'production', [name]: value })) === JSON.stringify(config);
      expect([name, inProduction === null]).toEqual([name, isSame]);
    }
  });

  it('tells every variable without a default from those with one', () => {
    const optional = rows.filter(({ cells }) => cells[0] === '–').map(({ name }) => name);
    const { databaseUrl, redis, tls, identity, tokenIssuer, production } = readConfig({});
    expect({ databaseUrl, redis, tls, identity, tokenIssuer, production }).toEqual({
      ...{ databaseUrl: null, redis: null, tls: null, identity: null, tokenIssuer: null },
      production: false,
    });
    expect(optional.sort()).toEqual([
      'ADMIN_TOKEN',
      'ALLOWED_ORIGINS',
      'AUDIT_RETENTION',
      'AUTH_PRIVATE_KEY_PATH',
      'AUTH_PUBLIC_KEY_PATH',
      'DATABASE_URL',
      'DEPLOYMENT_ID',
      'GRAPHQL_DOCUMENTS_PATH',
      'JWT_AUDIENCE',
      'JWT_ISSUER',
      'JWT_JWKS_URL',
      'JWT_PUBLIC_KEY_PATH',
      'NODE_ENV',
      'OTEL_EXPORTER_OTLP_ENDPOINT',
      'REDIS_URL',
      'TLS_CERT_PATH',
      'TLS_CLIENT_CA_PATH',
      'TLS_KEY_PATH',
      'TRUST_PROXY',
    ]);
    expect(readConfig({}).adminToken?.generated).toBe(true);
    expect(readConfig({ NODE_ENV: 'production' }).adminToken).toBeNull();
  });
});

describe('docs/OPERATIONS.md', () => {
  const none = () => 0;
  const gauges = {
    ...{
      links: none,
      unauthenticated: none,
      upgradesHeld: none,
      exhaustedAddresses: none,
      agentsPaused: none,
      eventsWaiting: none,
      subscriptions: none,
    },
    busPeers: () => 0,
    busHintsLost: () => 0,
    certificateExpiresAt: () => null,
    clockAheadMs: () => 0,
  };

  it('names the metrics that are exposed, each with its type and labels, and no other', async () => {
    const metrics = createMetrics(gauges);
    const { body } = await metrics.expose();
    const exposed = [...body.matchAll(/^# TYPE (aegis_\w+) (\w+)$/gm)].map(([, name, type]) => `${name} ${type}`);
    const documented = namedRows(page('docs/OPERATIONS.md'))
      .filter(({ name }) => name.startsWith('aegis_'))
      .map(({ name, cells }) => `${name} ${cells[0]}`);
    expect(documented.sort()).toEqual(exposed.sort());
  });

  it('names the label of every metric that has one', async () => {
    const metrics = createMetrics(gauges);
    metrics.eventStored('logs');
    metrics.authenticated('v1', 1, null);
    metrics.frameRefused('FRAME_REPLAYED');
    const { body } = await metrics.expose();
    const namesIn = (text: string, pattern: RegExp) => [...text.matchAll(pattern)].map(([, name]) => name).sort();
    const documented = new Map(
      namedRows(page('docs/OPERATIONS.md')).map(({ name, cells }) => [name, namesIn(cells[1] ?? '', /`(\w+)`/g)]),
    );
    const samples = [...body.matchAll(/^(aegis_\w+)\{(.*)\}/gm)].filter(([, , labels]) => !labels?.includes('le="'));
    expect(samples.length).toBeGreaterThanOrEqual(3);
    for (const [, name = '', labels = ''] of samples)
      expect([name, documented.get(name)]).toEqual([name, namesIn(labels, /(\w+)="/g)]);
  });
});

describe('docs/AUDIT.md', () => {
  it('lists every action that is put on record, and no other', () => {
    const rows = page('docs/AUDIT.md').split('\n');
    const listed = rows.flatMap((row) =>
      [...(/^\| (`.*?) \|/.exec(row)?.[1] ?? '').matchAll(/`([\w.-]+)`/g)].map(([, name]) => name),
    );
    expect(listed.sort()).toEqual([...auditedActionNames].sort());
  });
});

describe('docs/GRAPHQL.md', () => {
  it('tells the limits that the code has', () => {
    const text = page('docs/GRAPHQL.md');
    const { streamLimit, graphqlLimits } = readConfig({});
    const { maxDepth, maxCost } = graphqlLimits;
    const grouped = (count: number) => count.toLocaleString('en-US');
    const limits = {
      'bytes of a body, of a WebSocket message': grouped(maxRequestBytes),
      'characters of a document': grouped(maxDocumentCharacters),
      'characters of a subscription with its variables, as JSON': grouped(maxSubscriptionCharacters),
      "characters of an operation's id, over WebSocket": String(maxIdCharacters),
      'tokens of a document': grouped(maxDocumentTokens),
      'levels of fields, through fragments': `\`GRAPHQL_MAX_DEPTH\` (${maxDepth})`,
      'levels of fields in introspection': String(maxIntrospectionDepth),
      'aliases of a document': String(maxAliases),
      'directives of a document': String(maxDirectives),
      'fields that stand in one selection again': String(maxRepeatedFields),
      'cost of an operation': `\`GRAPHQL_MAX_COST\` (${grouped(maxCost)})`,
      'levels of a value': String(maxJsonDepth),
      'entries of a page': String(maxPageSize),
      'operations that run at once on one socket': String(maxSocketOperations),
      'sockets of one address, sockets and subscriptions of one consumer, on each gateway': `\`STREAM_LIMIT\` (${grouped(streamLimit ?? 0)})`,
    };
    const [, table = ''] = /\| what \| at most \| else \|\n(.*?)\n\n/s.exec(text) ?? [];
    const told = table
      .split('\n')
      .slice(1)
      .map((row) => row.split('|').map((cell) => cell.trim()));
    expect(Object.fromEntries(told.map(([, what = '', limit]) => [what, limit]))).toEqual(limits);
    expect(text).toContain(`any other list, counts\nas ${defaultPageSize}.`);
  });
});

describe('docs/PROTOCOL.md', () => {
  const text = page('docs/PROTOCOL.md');
  const rows = namedRows(text);

  it('tells the values of the published vectors in its worked example', () => {
    const vectors = z
      .object({
        cases: z.array(
          z.object({
            steps: z.record(z.string(), z.string()),
            records: z.array(z.object({ direction: z.string(), json: z.string(), nonce: z.string(), aad: z.string() })),
          }),
        ),
      })
      .parse(JSON.parse(page('tests/vectors/aegis-v2.json')));
    const [plain] = vectors.cases;
    const example = rows.filter(({ name }) => Object.hasOwn(plain?.steps ?? {}, name));
    expect(example).toHaveLength(11);
    for (const { name, cells } of example) expect([name, quoted(cells[0])]).toEqual([name, plain?.steps[name]]);
    const record = plain?.records.find(({ direction }) => direction === 'c2s');
    for (const value of [record?.json, record?.nonce, record?.aad]) expect(text).toContain(`\`${value}\``);
  });

  it('tells every close code of v2, and no other', () => {
    const documented = [...text.matchAll(/^\| (\d{4}) \|/gm)].map(([, code]) => Number(code));
    expect(documented).toEqual(Object.values(v2CloseCodes));
  });

  it('tells the limits that the code has', () => {
    const { maxRecordBytes, maxBatchMessages, maxInFlightMessages, ackTimeoutMs } = defaultSessionLimits;
    const limits = { max_record: maxRecordBytes, max_batch: maxBatchMessages, max_in_flight: maxInFlightMessages };
    const told = JSON.stringify({ ...limits, ack_timeout: ackTimeoutMs }).replaceAll(/([:,])/g, '$1 ');
    expect(text).toContain(`\`${told}\` unless configured`);
    const grouped = (count: number) => count.toLocaleString('en-US');
    expect(text).toContain(`| ${grouped(maxRecordBytes)} bytes before it |`.slice(2));
    expect(text).toContain(`text frames (the handshake) | ${grouped(maxHandshakeFrameLength)} bytes`);
    expect(text).toContain(`JSON of at most ${grouped(maxIdentityBytes)} bytes, nested at most ${maxJsonDepth} deep`);
    expect(text).toContain(`at most ${grouped(maxAcknowledgedIds)}, that an \`ack\``);
    expect(text).toContain(`The frame is ${recordOverheadBytes} bytes longer than the JSON`);
    expect(text).toContain(`1 to ${maxChannelLength} characters`);
    expect(text).toContain(`the upgrade to M3 | ${handshakeTimeoutMs / 1_000} s`);
    expect(maxRecordsPerGeneration).toBe(2 ** 20);
  });
});

describe('docs/SECURITY.md', () => {
  const text = page('docs/SECURITY.md');
  // A file in backquotes, and after it, in brackets, what names of its tests say.
  const shown = [...text.matchAll(/`(tests\/[\w./-]+)`(?: \(("[^"]+"(?:, "[^"]+")*)\))?/g)].map(
    ([, file = '', names = '']) => ({ file, names: [...names.matchAll(/"([^"]+)"/g)].map(([, name = '']) => name) }),
  );

  it('names tests that there are', () => {
    expect(shown.length).toBeGreaterThan(50);
    for (const { file, names } of shown) {
      expect(existsSync(join(root, file)), file).toBe(true);
      for (const name of names) expect([file, name, page(file).includes(name)]).toEqual([file, name, true]);
    }
  });

  it('quotes nothing that is not such a name', () => {
    const named = shown.flatMap(({ names }) => names).length;
    expect([...text.matchAll(/"[^"\n]+"/g)].length).toBe(named);
  });

  it('walks each of the ten of the API Security Top 10', () => {
    const walked = [...text.matchAll(/^### API(\d+) /gm)].map(([, number]) => Number(number));
    expect(walked).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
  });
});

describe('the pages', () => {
  const pages = [
    'README.md',
    'CHANGELOG.md',
    'SECURITY.md',
    'deploy/README.md',
    ...readdirSync(join(root, 'docs')).map((name) => `docs/${name}`),
  ];
  const texts = pages.filter((path) => path.endsWith('.md'));

  /** The anchors of a page's headings, as they are made on the web. */
  function anchors(markdown: string): Set<string> {
    const headings = [...markdown.matchAll(/^#+ (.+)$/gm)].map(([, heading = '']) => heading);
    return new Set(
      headings.map((heading) =>
        heading
          .toLowerCase()
          .replaceAll(/[^\w\s-]/g, '')
          .replaceAll(' ', '-'),
      ),
    );
  }

  it.each(texts)('%s links to nothing that there is not', (path) => {
    for (const [, target = ''] of page(path).matchAll(/\]\(([^)]+)\)/g)) {
      if (/^\w+:\/\//.test(target)) continue;
      const [file = '', anchor] = target.split('#');
      const linked = file === '' ? join(root, path) : resolve(dirname(join(root, path)), file);
      expect(existsSync(linked), `${path} → ${target}`).toBe(true);
      if (anchor !== undefined) expect(anchors(page(relative(root, linked))), `${path} → ${target}`).toContain(anchor);
    }
  });

  it.each(texts)('%s names no source file and no script that there is not', (path) => {
    const manifest: unknown = JSON.parse(page('package.json'));
    for (const [, file = ''] of page(path).matchAll(/`((?:src|tests|drizzle|scripts)\/[\w./-]+)`/g))
      expect(existsSync(join(root, file)), `${path}: ${file}`).toBe(true);
    for (const [, script] of page(path).matchAll(/npm run ([\w:]+)/g))
      expect(manifest, path).toHaveProperty(['scripts', script ?? '']);
  });
});
