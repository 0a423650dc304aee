import { type Dialect, deployedHabits, type JsonValue, startV1Agent } from '../../agent-client/index.ts';
import type { Connection, EventKind, Transport } from '../../agent-client/v2/index.ts';
import { connectAgent, createMemoryStore, wsTransport } from '../../agent-client/v2/node/index.ts';
import { nativeCrypto } from '../../agent-gateway/crypto/native.ts';

/** An agent of the demo, of whichever protocol. */
export interface DemoAgent {
  readonly agentId: string;
  readonly protocol: 'V1' | 'V2';
  readonly isReady: boolean;
  /** The payloads of the commands that it has read, in order. */
  readonly commands: readonly unknown[];
  /** Resolves with the id of the message, once it is written, or, on v2, acknowledged. */
  report(kind: EventKind, body: JsonValue): Promise<string>;
  ready(): Promise<void>;
  /** Cuts its connection, as a network does; it comes back by itself. */
  drop(): void;
  close(): Promise<void>;
}

/** From a drop to the next dial; deployed agents take 7 s, for which nobody wants to wait here. */
const redialDelayMs = 2_000;
const agentVersion = '1.4.2';

export function startV1DemoAgent(url: string, agentId: string, dialect: Dialect, registers: boolean): DemoAgent {
  const agent = startV1Agent({
    ...{ url, agentId, dialect, suite: nativeCrypto },
    // Flapping belongs to deployed agents too, and would fill the screen with comings and goings.
    habits: { ...deployedHabits[dialect], registers, flaps: 'never' },
    timings: { redialDelayMs },
    facts: { agentVersion, platform: { arch: 'amd64', hostname: agentId, os: 'linux' } },
    journalLimit: 200,
  });
  return {
    ...{ agentId, protocol: 'V1' },
    get isReady() {
      return agent.state === 'ready';
    },
    get commands() {
      return agent.commands.entries.map(({ body }) => body);
    },
    report: async (kind, body) => (await agent.sendEvent(kind, body)).message.id,
    ready: () => agent.ready(),
    drop: () => agent.drop(),
    close: () => agent.close(),
  };
}

/** `pins` are the gateway's keys, by fingerprint. */
export async function startV2DemoAgent(url: string, agentId: string, pins: readonly string[]): Promise<DemoAgent> {
  const { transport, cut } = cuttable(wsTransport());
  const agent = await connectAgent({
    ...{ url, agentId, pins, store: createMemoryStore(), transport },
    host: { agentVersion, platform: { arch: 'amd64', hostname: agentId, os: 'linux' } },
    // All of the backoff and nothing at random: as long as the others take.
    ...{ timings: { backoffBaseMs: redialDelayMs }, random: () => 1 },
  });
  const commands: unknown[] = [];
  agent.onCommand(({ payload }) => {
    commands.push(payload);
    if (commands.length > 200) commands.shift();
    return { applied: true };
  });
  let reports = 0;
  return {
    ...{ agentId, protocol: 'V2', commands },
    get isReady() {
      return agent.state === 'open';
    },
    async report(kind, body) {
      const id = `${agentId}-${++reports}`;
      await agent.report(kind, body, { id });
      return id;
    },
    ready: () => agent.ready(),
    drop: cut,
    close: () => agent.close(),
  };
}

function cuttable(transport: Transport): { readonly transport: Transport; cut(): void } {
  let latest: Connection | null = null;
  return {
    transport: {
      dial(request, listener) {
        latest = transport.dial(request, listener);
        return latest;
      },
    },
    cut: () => latest?.terminate(),
  };
}
