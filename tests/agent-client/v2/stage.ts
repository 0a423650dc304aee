import { afterEach, beforeEach } from 'vitest';
import { Journal } from '../../../src/agent-client/index.ts';
import {
  type AgentOptions,
  type AgentStatus,
  connectAgent,
  createMemoryStore,
  type V2Agent,
  type V2Clock,
} from '../../../src/agent-client/v2/index.ts';
import { nativeCrypto, wsTransport } from '../../../src/agent-client/v2/node/index.ts';
import { ManualClock } from '../manual-clock.ts';
import { GatewayPeer } from './gateway-peer.ts';

/** A clock that stands still; the wall clock can be set apart from the monotonic one. */
export class ManualV2Clock extends ManualClock implements V2Clock {
  #wallOffsetMs = 0;

  override nowMs(): number {
    return super.nowMs() + this.#wallOffsetMs;
  }

  monotonicMs(): number {
    return super.nowMs();
  }

  setWallClock(offsetMs: number): void {
    this.#wallOffsetMs = offsetMs;
  }
}

export interface StagedAgent {
  readonly agent: V2Agent;
  readonly statuses: Journal<AgentStatus>;
  /** Waits for the end of a link, or of an attempt. */
  ended(): Promise<EndStatus>;
  /** The same, and lets the time pass until the agent dials again. */
  cameBack(): Promise<EndStatus>;
}

export type EndStatus = Extract<AgentStatus, { readonly type: 'closed' }>;

export interface Stage {
  readonly peer: GatewayPeer;
  readonly clock: ManualV2Clock;
  /** Starts `host-1` against the peer, on the clock; the stage closes it after the test. */
  start(options?: Partial<AgentOptions>): Promise<StagedAgent>;
}

/** A gateway, a clock that stands still, and agents, new for each test of the file. */
export function useStage(): () => Stage {
  let stage: Stage | null = null;
  let agents: V2Agent[] = [];

  beforeEach(async () => {
    const peer = await GatewayPeer.start();
    const clock = new ManualV2Clock();
    agents = [];
    stage = {
      peer,
      clock,
      async start(options = {}) {
        const agent = await connectAgent({
          ...{ url: peer.url, agentId: 'host-1', pins: [peer.fingerprint], store: createMemoryStore() },
          ...{ transport: wsTransport(), crypto: nativeCrypto, clock, random: () => 0.5 },
          ...options,
        });
        agents.push(agent);
        const statuses = new Journal<AgentStatus>('status', 10_000);
        agent.onStatus((status) => statuses.record(status));
        const ended = () => statuses.next((status): status is EndStatus => status.type === 'closed');
        return {
          ...{ agent, statuses, ended },
          async cameBack() {
            const end = await ended();
            // No further: what is dialled then would time out.
            clock.advance(end.returnsInMs ?? 0);
            return end;
          },
        };
      },
    };
  });

  afterEach(async () => {
    await Promise.all(agents.map((agent) => agent.close()));
    await stage?.peer.stop();
    stage = null;
  });

  return () => {
    if (!stage) throw new Error('the stage stands only during a test');
    return stage;
  };
}
