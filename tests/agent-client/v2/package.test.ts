import { spawn, spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { createContext, runInContext } from 'node:vm';
import { build } from 'esbuild';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { WebSocket } from 'ws';
import { GatewayPeer } from './gateway-peer.ts';

const root = fileURLToPath(new URL('../../..', import.meta.url));
const compiler = join(root, 'node_modules', 'typescript', 'bin', 'tsc');

/** A project that has the compiled package among its dependencies, as whoever installs it has. */
let project: string;

beforeAll(() => {
  project = mkdtempSync(join(tmpdir(), 'project-'));
  const installed = join(project, 'node_modules', 'aegis-gateway');
  mkdirSync(installed, { recursive: true });
  cpSync(join(root, 'package.json'), join(installed, 'package.json'));
  const compiled = spawnSync(process.execPath, [compiler, '-p', root, '--outDir', join(installed, 'dist')]);
  expect(compiled.stdout.toString()).toBe('');
  for (const dependency of ['@noble', '@types', 'ws', 'zod'])
    symlinkSync(join(root, 'node_modules', dependency), join(project, 'node_modules', dependency));
  writeFileSync(join(project, 'package.json'), '{"type":"module"}');
}, 120_000);
afterAll(() => rmSync(project, { recursive: true, force: true }));

describe('aegis-gateway/agent', () => {
  /** Bundles for browsers, where an import that only Node has is an error. */
  async function bundle(entry: string): Promise<{ readonly code: string; readonly inputs: readonly string[] }> {
    const { outputFiles, metafile } = await build({
      stdin: { contents: `export * from '${entry}';`, resolveDir: project },
      ...{ bundle: true, platform: 'browser', format: 'iife', globalName: 'aegis', write: false, metafile: true },
      ...{ treeShaking: true, logLevel: 'silent' },
    });
    return { code: outputFiles[0]?.text ?? '', inputs: Object.keys(metafile.inputs) };
  }

  it('needs nothing of Node, and none of its packages but noble', async () => {
    const { code, inputs } = await bundle('aegis-gateway/agent');
    expect(code).not.toMatch(/\bBuffer\b|\bprocess\.|\brequire\(|node:/);
    const packages = new Set(inputs.flatMap((input) => /node_modules\/((?:@\w+\/)?[\w-]+)\//.exec(input)?.[1] ?? []));
    expect([...packages].sort()).toEqual(['@noble/ciphers', '@noble/curves', '@noble/hashes', 'aegis-gateway']);
  });

  it('cannot be told from what needs Node by a bundler that is right', async () => {
    await expect(bundle('aegis-gateway/agent/node')).rejects.toThrow(/node:/);
  });

  it('goes through a handshake, a report and a command where there is but WebSocket, text, timers and random bytes', async () => {
    const peer = await GatewayPeer.start();
    try {
      const { code } = await bundle('aegis-gateway/agent');
      const context = createContext({
        ...{ WebSocket, TextEncoder, TextDecoder, setTimeout, clearTimeout, performance },
        crypto: { getRandomValues: crypto.getRandomValues.bind(crypto) },
        ...{ url: peer.url, pin: peer.fingerprint },
      });
      runInContext(code, context);
      const run = runInContext(
        `(async () => {
          const { connectAgent, createMemoryStore, webSocketTransport } = aegis;
          const transport = webSocketTransport(WebSocket);
          const agent = await connectAgent({ url, agentId: 'browser', pins: [pin], store: createMemoryStore(), transport });
          agent.onCommand(({ payload }) => ({ echo: payload }));
          await agent.report('threats', { severity: 'high' });
          return agent;
        })()`,
        context,
      );
      const agent: { close(): Promise<void> } = await run;
      expect((await peer.nextOn('agent.threats')).message.payload).toEqual({ severity: 'high' });
      (await peer.opened.next()).command('c-1', 7);
      const { message } = await peer.next(({ headers }) => headers.replyTo === 'c-1');
      expect(message.payload).toEqual({ echo: 7 });
      await agent.close();
    } finally {
      await peer.stop();
    }
  });
});

describe('the installed package', () => {
  it('runs the example of docs/AGENT-CLIENT.md', async () => {
    const page = readFileSync(join(root, 'docs', 'AGENT-CLIENT.md'), 'utf8');
    const [, example = ''] = /```js\n([\s\S]*?)```/.exec(page) ?? [];
    expect(example.trim().split('\n').length).toBeLessThanOrEqual(16);
    const peer = await GatewayPeer.start();
    try {
      const script = example
        .replace('wss://gateway.example.net/ws/agent', peer.url)
        .replace(/'[0-9a-f]{64}'/, `'${peer.fingerprint}'`)
        .replace('/var/lib/aegis-agent', join(project, 'state'));
      writeFileSync(join(project, 'example.js'), script);
      const child = spawn(process.execPath, ['example.js'], { cwd: project, stdio: ['ignore', 'inherit', 'inherit'] });
      const ended = new Promise<number | null>((resolve) => child.once('close', resolve));
      expect((await peer.nextOn('agent.threats')).message.type).toBe('event');
      expect(await ended).toBe(0);
    } finally {
      await peer.stop();
    }
  }, 60_000);

  it('has types', () => {
    writeFileSync(
      join(project, 'typed.ts'),
      `import { connectAgent, createFileStore, type AgentCommand } from 'aegis-gateway/agent/node';
       import { createMemoryStore, webSocketTransport, type AgentOptions } from 'aegis-gateway/agent';
       const agent = await connectAgent({ url: 'wss://a', agentId: 'a', pins: 'trust-first', store: createFileStore('/x') });
       agent.onCommand((command: AgentCommand) => command.kind === 'policies');
       await agent.report('threats', {}, { priority: 'high' });
       // @ts-expect-error there is no such kind
       await agent.report('lunch', {});
       const portable: AgentOptions = { url: 'wss://a', agentId: 'a', pins: [], store: createMemoryStore(), transport: webSocketTransport(WebSocket) };
       // @ts-expect-error a portable agent is told its transport
       const bare: AgentOptions = { url: 'wss://a', agentId: 'a', pins: [], store: createMemoryStore() };
       export { bare, portable };`,
    );
    const options = ['--noEmit', '--strict', '--target', 'es2023', '--module', 'nodenext', '--lib', 'es2023,dom'];
    const checked = spawnSync(process.execPath, [compiler, ...options, 'typed.ts'], { cwd: project });
    expect(checked.stdout.toString()).toBe('');
  });
});
