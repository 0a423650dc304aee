/** Where Redis is, as REDIS_URL says. */
export type RedisTarget = RedisServer | RedisCluster | RedisSentinel;

export interface RedisNode {
  readonly host: string;
  readonly port: number;
}

interface RedisLogin {
  readonly tls: boolean;
  readonly username: string | null;
  readonly password: string | null;
}

export interface RedisServer extends RedisLogin {
  readonly kind: 'server';
  readonly node: RedisNode;
  readonly db: number;
}

export interface RedisCluster extends RedisLogin {
  readonly kind: 'cluster';
  /** Some of its nodes, one at least. */
  readonly nodes: readonly [RedisNode, ...RedisNode[]];
}

export interface RedisSentinel extends RedisLogin {
  readonly kind: 'sentinel';
  readonly sentinels: readonly RedisNode[];
  readonly masterName: string;
  readonly db: number;
  readonly sentinelUsername: string | null;
  readonly sentinelPassword: string | null;
}

const shape = /^(rediss?)(?:\+(cluster|sentinel))?:\/\/(?:([^@/?#]*)@)?([^@/?#]*)(?:\/([^?#]*))?(?:\?([^#]*))?$/;
const parametersOf = { server: ['db'], cluster: [], sentinel: ['db', 'sentinelUsername', 'sentinelPassword'] };

/**
 * `redis://user:password@host:6379/0`, `redis+cluster://host:6379,host:6379`, `redis+sentinel://host:26379,host:26379/master?db=0`;
 * with TLS `rediss…`. Gives what is wrong as a text, which holds nothing of the URL that could be secret.
 */
export function parseRedisUrl(text: string): RedisTarget | string {
  const [, scheme, form = 'server', login = '', hosts = '', path = '', query = ''] = shape.exec(text) ?? [];
  if (scheme === undefined || (form !== 'server' && form !== 'cluster' && form !== 'sentinel'))
    return 'must be a URL that starts with redis:// or rediss://, redis+cluster:// or redis+sentinel://';
  const nodes = hosts.split(',').flatMap((host) => nodeOf(host, form === 'sentinel' ? 26_379 : 6_379) ?? []);
  if (nodes.length < hosts.split(',').length) return 'must name hosts, each with a port or without: host:6379';
  const parameters = new URLSearchParams(query);
  const known: readonly string[] = parametersOf[form];
  if ([...parameters.keys()].some((name) => !known.includes(name)))
    return known.length === 0 ? 'must have no parameters' : `must have no other parameters than ${known.join(', ')}`;
  const [username = '', password = ''] = splitOnce(login, ':').map(decoded);
  const way = { tls: scheme === 'rediss', username: username || null, password: password || null };
  return targets[form](nodes, decoded(path), parameters, way);
}

type Reader = (
  nodes: readonly RedisNode[],
  path: string,
  parameters: URLSearchParams,
  login: RedisLogin,
) => RedisTarget | string;

const wrongDatabase = 'must name the database by a number';

const targets: Readonly<Record<RedisTarget['kind'], Reader>> = {
  server([node, ...others], path, parameters, login) {
    const db = databaseOf(path || (parameters.get('db') ?? '0'));
    if (!node || others.length > 0) return 'names several hosts: say redis+cluster:// or redis+sentinel://';
    return db === null ? wrongDatabase : { kind: 'server', node, db, ...login };
  },
  cluster([first, ...others], path, _parameters, login) {
    if (!first || (path !== '' && path !== '0')) return 'must name no database: a cluster has but one';
    return { kind: 'cluster', nodes: [first, ...others], ...login };
  },
  sentinel(sentinels, masterName, parameters, login) {
    const db = databaseOf(parameters.get('db') ?? '0');
    if (masterName === '') return "must name the sentinels' master: redis+sentinel://host:26379/mymaster";
    if (db === null) return wrongDatabase;
    const [sentinelUsername, sentinelPassword] = [
      parameters.get('sentinelUsername'),
      parameters.get('sentinelPassword'),
    ];
    return { kind: 'sentinel', sentinels, masterName, db, sentinelUsername, sentinelPassword, ...login };
  },
};

function nodeOf(text: string, defaultPort: number): RedisNode | null {
  const [, bracketed, name, port] = /^(?:\[([\da-fA-F:.]+)\]|([\w.-]+))(?::(\d{1,5}))?$/.exec(text) ?? [];
  const host = bracketed ?? name;
  return host === undefined ? null : { host, port: port === undefined ? defaultPort : Number(port) };
}

function databaseOf(text: string): number | null {
  return /^\d{1,9}$/.test(text) ? Number(text) : null;
}

function splitOnce(text: string, separator: string): string[] {
  const place = text.indexOf(separator);
  return place === -1 ? [text] : [text.slice(0, place), text.slice(place + 1)];
}

/** What is no percent-encoding stands for itself. */
function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
