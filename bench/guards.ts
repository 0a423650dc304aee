import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { projectRoot } from './processes.ts';
import type { GatewayStart } from './servers.ts';

/**
 * What stands between a request and its work, and how a gateway runs without it. None of it can be switched off but by who may
 * start the process with modules of another making: what is compiled is the same on either side.
 */
interface Guard {
  readonly title: string;
  /** Compiled modules, by their path in `dist`, and what they export in place of their own. */
  readonly stubs: Readonly<Record<string, string>>;
  readonly env?: Readonly<Record<string, string>>;
}

const guards = {
  'audit log': {
    title: 'the audit log',
    stubs: {
      'audit/auditing.js':
        'export const auditing = (sql) => sql`select where false`; export const auditingEach = auditing;',
    },
  },
  'document limits': {
    title: 'limits of the document, its cost, the soundness of what is in it',
    stubs: {
      'http/document-limits.js': 'export const checkDocument = () => {};',
      'http/query-cost.js': 'export const costOf = () => 0;',
      'http/sound-input.js': 'export const checkVariables = () => {}; export const soundLiterals = () => ({});',
    },
  },
  'rate limits': {
    title: 'rate limits of consumers and addresses',
    stubs: {},
    env: { RATE_LIMIT_CONSUMER: 'off', RATE_LIMIT_ADDRESS: 'off' },
  },
  permissions: {
    title: 'permission checks',
    stubs: { 'access/consumer.js': 'export const requirePermission = () => {};' },
  },
  organisations: {
    title: 'row-level security of organisations',
    stubs: {
      'db/bound-sessions.js':
        "export const createBoundSessions = () => ({ lend: () => Promise.reject(new Error('left out')), close: async () => {} });",
    },
  },
  allowances: {
    title: 'allowances of agents',
    stubs: {
      'agent-gateway/allowance.js':
        'const all = { tookFrames() {}, tookBytes() {}, overdrawnMs: 0 }; export const createAllowances = () => ({ of: () => all });',
    },
  },
} as const satisfies Readonly<Record<string, Guard>>;

export type GuardName = keyof typeof guards;

export function titleOf(names: readonly GuardName[]): string {
  return names.length === 1 && names[0] ? guards[names[0]].title : 'all permissions and limits';
}

/** A gateway without these. */
export function without(names: readonly GuardName[]): GatewayStart {
  const left: readonly Guard[] = names.map((name) => guards[name]);
  const stubs = Object.fromEntries(
    left.flatMap((guard) =>
      Object.entries(guard.stubs).map(([path, exports]) => {
        const url = pathToFileURL(join(projectRoot, 'dist', path)).href;
        // What a stub exports itself comes before what it passes on.
        return [url, `export * from '${url}?whole'; ${exports}`];
      }),
    ),
  );
  const hooks = `const stubs = ${JSON.stringify(stubs)};
    export const load = (url, context, next) => url in stubs
      ? { format: 'module', source: stubs[url], shortCircuit: true } : next(url, context);`;
  const start = `import { register } from 'node:module'; register(${JSON.stringify(moduleOf(hooks))});`;
  return {
    nodeArguments: Object.keys(stubs).length > 0 ? ['--import', moduleOf(start)] : [],
    env: Object.assign({}, ...left.map(({ env }) => env)),
  };
}

function moduleOf(source: string): string {
  return `data:text/javascript,${encodeURIComponent(source)}`;
}
