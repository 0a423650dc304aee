import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { z } from 'zod';
import { readConfig, variableNames } from '../../src/config.ts';
import { makeCertificate } from '../support/certificates.ts';
import { checkConfiguration, configurationFor, hasHaproxy } from './haproxy.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
const read = (path: string) => readFileSync(join(root, path), 'utf8');

describe.skipIf(!hasHaproxy())('deploy/haproxy/haproxy.cfg', () => {
  const folder = mkdtempSync(join(tmpdir(), 'aegis-haproxy-'));
  afterAll(() => rmSync(folder, { recursive: true }));

  it('is taken by haproxy without a warning, with no address known yet', () => {
    const { certPem, keyPem } = makeCertificate('balancer.example');
    const certificatePath = join(folder, 'tls.crt');
    writeFileSync(certificatePath, certPem);
    writeFileSync(join(folder, 'tls.key'), keyPem);
    const file = join(folder, 'haproxy.cfg');
    writeFileSync(file, configurationFor({ listen: ':443', certificatePath, gateways: [] }));
    expect(checkConfiguration(file)).toBe('');
  });
});

const service = z.object({
  image: z.string().optional(),
  environment: z.record(z.string(), z.string()).optional(),
  volumes: z.array(z.string()).optional(),
  command: z.array(z.string()).optional(),
});

describe('deploy/compose.yaml', () => {
  const text = read('deploy/compose.yaml');
  const { services } = z.object({ services: z.record(z.string(), service) }).parse(parse(text, { merge: true }));
  const gateways = Object.entries(services).filter(([name]) => name.startsWith('gateway-'));

  it('has the gateways that the balancer knows', () => {
    const balanced = [...read('deploy/haproxy/haproxy.cfg').matchAll(/^ +server (\S+) (\S+):8080$/gm)];
    expect(new Set(balanced.map(([, name]) => name))).toEqual(new Set(gateways.map(([name]) => name)));
    expect(balanced.every(([, name, host]) => name === host)).toBe(true);
  });

  it('sets no variable that the gateway does not know', () => {
    for (const [name, { environment = {} }] of [...gateways, ['keys', services.keys] as const].flatMap(
      ([name, found]) => (found ? [[name, found] as const] : []),
    ))
      for (const variable of Object.keys(environment)) expect(variableNames, name).toContain(variable);
  });

  it('configures a gateway that starts, with whatever is not set in .env', () => {
    const folder = mkdtempSync(join(tmpdir(), 'aegis-compose-'));
    const given: Readonly<Record<string, string>> = {
      ...{ ADMIN_TOKEN: 'a-token-of-sixteen-or-more', POSTGRES_PASSWORD: 'secret' },
    };
    const resolved = (value: string) =>
      value.replaceAll(/\$\{(\w+)(?::[-?]([^}]*))?\}/g, (_all, name: string, rest: string) => given[name] ?? rest);
    for (const [, { environment = {} }] of gateways) {
      const env = Object.fromEntries(Object.entries(environment).map(([name, value]) => [name, resolved(value)]));
      for (const name of ['AUTH_PRIVATE_KEY_PATH', 'AUTH_PUBLIC_KEY_PATH']) {
        env[name] = join(folder, name);
        writeFileSync(env[name], '');
      }
      const config = readConfig({ ...imageEnvironment(), ...env });
      expect(config).toMatchObject({ production: true, listenHost: '0.0.0.0', listenPort: 8_080 });
      expect(config.databaseUrl).toBe('postgres://aegis:secret@postgres:5432/aegis');
    }
    rmSync(folder, { recursive: true });
  });

  it('mounts only files that there are, and asks for those that are its user’s to make', () => {
    const mounted = Object.values(services).flatMap(({ volumes = [] }) =>
      volumes.map((volume) => volume.split(':')[0]),
    );
    const local = mounted.filter((path) => path?.startsWith('./'));
    expect(new Set(local)).toEqual(new Set(['./haproxy/haproxy.cfg', './tls']));
    expect(existsSync(join(root, 'deploy/haproxy/haproxy.cfg'))).toBe(true);
    expect(read('deploy/README.md')).toContain('deploy/tls/tls.crt');
  });

  it('needs no more of .env than the README tells', () => {
    const needed = [...text.matchAll(/\$\{(\w+):\?/g)].map(([, name]) => name);
    expect([...new Set(needed)].sort()).toEqual(['ADMIN_TOKEN', 'POSTGRES_PASSWORD']);
    for (const name of needed) expect(read('deploy/README.md')).toContain(`${name}=`);
  });
});

describe('deploy/Dockerfile', () => {
  const lines = read('deploy/Dockerfile').split('\n');

  it('copies nothing that there is not, or that .dockerignore leaves out', () => {
    const kept = read('.dockerignore')
      .split('\n')
      .flatMap((line) => (line.startsWith('!') ? [line.slice(1)] : []));
    const copied = lines
      .filter((line) => line.startsWith('COPY ') && !line.includes('--from='))
      .flatMap((line) => line.split(' ').slice(1, -1));
    expect(copied.length).toBeGreaterThan(5);
    for (const path of copied) {
      expect(existsSync(join(root, path)), path).toBe(true);
      expect(
        kept.some((entry) => path === entry || path.startsWith(`${entry}/`)),
        path,
      ).toBe(true);
    }
    for (const path of kept) expect(existsSync(join(root, path)), path).toBe(true);
  });

  it('runs what it has copied, as nobody in particular', () => {
    const text = lines.join('\n');
    expect(text).toContain('ENTRYPOINT ["node", "dist/main.js"]');
    expect(text).toContain('CMD ["node", "deploy/health-check.js"]');
    expect(text).toContain('\nUSER node\n');
  });

  it('sets no variable that the gateway does not know', () => {
    for (const variable of Object.keys(imageEnvironment())) expect(variableNames).toContain(variable);
  });
});

/** What the image sets. */
function imageEnvironment(): Record<string, string> {
  const [, assignments = ''] = /^ENV (.+)$/m.exec(read('deploy/Dockerfile')) ?? [];
  return Object.fromEntries([...assignments.matchAll(/(\w+)=(\S+)/g)].map(([, name, value]) => [name, value]));
}

const helm = process.env.HELM ?? 'helm';
const chart = join(root, 'deploy/helm/aegis-gateway');

function hasHelm(): boolean {
  try {
    execFileSync(helm, ['version'], { stdio: 'ignore' });
    return true;
  } catch {
    process.stderr.write('helm is not installed (HELM names another place): the chart is not rendered.\n');
    return false;
  }
}

const object = z.looseObject({
  kind: z.string(),
  metadata: z.looseObject({ name: z.string() }),
  spec: z.looseObject({}).optional(),
});
type KubernetesObject = z.infer<typeof object>;

const podTemplate = z.object({
  metadata: z.object({ labels: z.record(z.string(), z.string()) }),
  spec: z.looseObject({
    terminationGracePeriodSeconds: z.number(),
    securityContext: z.looseObject({ runAsNonRoot: z.boolean() }),
    containers: z.tuple([
      z.looseObject({
        env: z.array(z.object({ name: z.string(), value: z.string() })),
        securityContext: z.looseObject({ readOnlyRootFilesystem: z.boolean() }),
        lifecycle: z.object({ preStop: z.object({ exec: z.object({ command: z.array(z.string()) }) }) }),
      }),
    ]),
  }),
});

describe.skipIf(!hasHelm())('the Helm chart', () => {
  const needed = { 'secrets.existingSecret': 'aegis', 'identity.existingSecret': 'aegis-identity' };
  const behindIngress = { ...needed, trustProxy: '10.0.0.0/8' };
  const everything = {
    ...{ ...behindIngress, 'ingress.enabled': 'true', 'ingress.host': 'gateway.example', 'ingress.tlsSecret': 'cert' },
    ...{ 'autoscaling.enabled': 'true', 'networkPolicy.enabled': 'true', 'serviceMonitor.enabled': 'true' },
    ...{ 'config.AGENT_ENROLLMENT': 'approval', 'config.SESSION_TIMEOUT': '24h' },
  };
  let objects: KubernetesObject[] = [];

  function run(command: string, values: Readonly<Record<string, string>>): string {
    const set = Object.entries(values).flatMap(([name, value]) => ['--set', `${name}=${value.replaceAll(',', '\\,')}`]);
    const args = command === 'lint' ? ['lint', '--strict', chart] : ['template', 'try', chart];
    return execFileSync(helm, [...args, ...set], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
  }

  function rendered(values: Readonly<Record<string, string>>): KubernetesObject[] {
    const documents = run('template', values).split(/^---$/m);
    return documents.map((text): unknown => parse(text)).flatMap((found) => (found ? [object.parse(found)] : []));
  }

  function specOf<Spec>(kind: string, schema: z.ZodType<Spec>): Spec {
    return schema.parse(objects.find((each) => each.kind === kind)?.spec);
  }

  beforeAll(() => {
    objects = rendered(everything);
  });

  it.each([
    ['behind an ingress', behindIngress],
    ['with TLS of its own', { ...needed, 'tls.existingSecret': 'cert', 'service.type': 'LoadBalancer' }],
    ['with everything', everything],
  ])('is sound %s', (_how, values) => {
    expect(run('lint', values)).toContain('0 chart(s) failed');
    expect(rendered(values).map(({ kind }) => kind)).toContain('Deployment');
  });

  it.each([
    ['no secret', { ...behindIngress, 'secrets.existingSecret': '' }, 'DATABASE_URL'],
    ['no key pair', { ...behindIngress, 'identity.existingSecret': '' }, 'private.pem'],
    ['neither TLS nor a proxy', needed, 'trustProxy'],
    ['a variable that it sets itself', { ...behindIngress, 'config.DATA_DIR': '/tmp' }, 'config'],
    ['a value that there is not', { ...behindIngress, replicas: '3' }, 'replicas'],
  ])('refuses %s, and says so', (_what, values, said) => {
    expect(() => run('template', values)).toThrow(said);
  });

  it('gives each kind once, under one name', () => {
    expect(objects.map(({ kind }) => kind).sort()).toEqual([
      'Deployment',
      'HorizontalPodAutoscaler',
      'Ingress',
      'NetworkPolicy',
      'PodDisruptionBudget',
      'Service',
      'ServiceAccount',
      'ServiceMonitor',
    ]);
    expect(new Set(objects.map(({ metadata }) => metadata.name))).toEqual(new Set(['try-aegis-gateway']));
    expect(readdirSync(join(chart, 'templates')).filter((name) => name.endsWith('.yaml'))).toHaveLength(objects.length);
  });

  it('selects the pods that it makes', () => {
    const { template } = specOf('Deployment', z.looseObject({ template: podTemplate }));
    const labels = z.looseObject({ matchLabels: z.record(z.string(), z.string()) });
    const selectors = [
      specOf('Deployment', z.looseObject({ selector: labels })).selector.matchLabels,
      specOf('PodDisruptionBudget', z.looseObject({ selector: labels })).selector.matchLabels,
      specOf('NetworkPolicy', z.looseObject({ podSelector: labels })).podSelector.matchLabels,
      specOf('Service', z.looseObject({ selector: z.record(z.string(), z.string()) })).selector,
    ];
    for (const selector of selectors) expect(template.metadata.labels).toMatchObject(selector);
  });

  it('sets no variable that the gateway does not know', () => {
    const { template } = specOf('Deployment', z.looseObject({ template: podTemplate }));
    const [container] = template.spec.containers;
    for (const { name } of container.env) expect(variableNames).toContain(name);
    expect(container.env).toContainEqual({ name: 'SESSION_TIMEOUT', value: '24h' });
  });

  it('drains a pod before it is stopped, and gives the stop its ten seconds', () => {
    const { template } = specOf('Deployment', z.looseObject({ template: podTemplate }));
    const { containers, terminationGracePeriodSeconds, securityContext } = template.spec;
    const [{ lifecycle, securityContext: own }] = containers;
    expect(lifecycle.preStop.exec.command).toEqual(['sleep', '10']);
    expect(terminationGracePeriodSeconds).toBeGreaterThanOrEqual(10 + 10);
    expect([securityContext.runAsNonRoot, own.readOnlyRootFilesystem]).toEqual([true, true]);
  });
});
