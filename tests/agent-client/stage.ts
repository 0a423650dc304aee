import { afterEach, beforeEach } from 'vitest';
import { startV1Agent, type V1Agent, type V1AgentOptions } from '../../src/agent-client/index.ts';
import { nativeCrypto } from '../../src/agent-gateway/crypto/native.ts';
import { ManualClock } from './manual-clock.ts';
import { RecorderServer } from './recorder-server.ts';

export interface Stage {
  readonly server: RecorderServer;
  readonly clock: ManualClock;
  /** Starts `host-head` against the server, on the clock; the stage ends it after the test. */
  start(options?: Partial<V1AgentOptions>): V1Agent;
}

/** A server, a clock that stands still, and agents, new for each test of the file. */
export function useStage(): () => Stage {
  let stage: Stage | null = null;
  let agents: V1Agent[] = [];

  beforeEach(async () => {
    const server = await RecorderServer.start();
    const clock = new ManualClock();
    const url = server.url;
    agents = [];
    stage = {
      server,
      clock,
      start(agentOptions = {}) {
        const agent = startV1Agent({
          url,
          agentId: 'host-head',
          suite: nativeCrypto,
          clock,
          ...agentOptions,
        });
        agents.push(agent);
        return agent;
      },
    };
  });

  afterEach(async () => {
    for (const agent of agents) agent.terminate();
    await stage?.server.stop();
    stage = null;
  });

  return () => {
    if (!stage) throw new Error('the stage stands only during a test');
    return stage;
  };
}

/** The payload of a frame that travels in base64 of JSON, and the frame. */
export function readFrame(text: string): { frame: Record<string, unknown>; body: unknown } {
  const frame: unknown = JSON.parse(text);
  if (typeof frame !== 'object' || frame === null) throw new Error('not a frame');
  const fields: Record<string, unknown> = { ...frame };
  const payload = typeof fields.payload === 'string' ? Buffer.from(fields.payload, 'base64').toString('utf8') : '';
  return { frame: fields, body: parseOrText(payload) };
}

function parseOrText(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}
