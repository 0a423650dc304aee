/** Drives any gateway with many agents, as deployed or of protocol v2, and tells each second how it goes. */
import { nativeCrypto } from '../agent-gateway/crypto/native.ts';
import type { CryptoSuite } from '../agent-gateway/crypto/suite.ts';
import { type AgentClock, systemClock } from './clock.ts';
import type { Dialect, Habits } from './habits.ts';
import { type SimulatedAgent, startSimulatedV1Agent, startSimulatedV2Agent } from './simulated-agents.ts';
import { createTelemetry, type Telemetry } from './telemetry.ts';
import type { V1AgentOptions } from './v1-options.ts';
import type { AgentOptions } from './v2/index.ts';

export interface SimulationOptions {
  readonly url: string;
  /** How many agents; they are named `<namePrefix>-0001` and on, those of v2 `<namePrefix>-v2-0001` and on. */
  readonly agents: number;
  /** Events a second, of all agents together; 0 keeps them idle. */
  readonly ratePerSecond: number;
  /** `mixed` takes v1 and v2 in turn; v1 where absent. */
  readonly protocol?: 'v1' | 'v2' | 'mixed';
  /** Given to the agents of v1 in turn. */
  readonly dialects: readonly [Dialect, ...Dialect[]];
  /** What the agents of v2 trust; the first gateway that answers where absent. */
  readonly pins?: AgentOptions['pins'];
  /** How long to send, counted from the start of the ramp; until `signal` where absent. */
  readonly durationMs?: number;
  /** Ends the simulation early; it resolves as if its time were over. */
  readonly signal: AbortSignal;
  /** Takes a line of progress each second. */
  readonly out: (line: string) => void;
  /** `sim` where absent. */
  readonly namePrefix?: string;
  /** The seed of what they report; 1 where absent. */
  readonly seed?: number;
  /** Handshakes under way at once; 20 where absent. */
  readonly connectConcurrency?: number;
  /** Departures from the `deployedHabits` of each dialect. */
  readonly habits?: Partial<Habits>;
  /** The native one where absent. */
  readonly suite?: CryptoSuite;
  readonly clock?: AgentClock;
  /** TLS trust and the like, handed to `ws`. */
  readonly socket?: V1AgentOptions['socket'];
}

export interface SimulationTotals {
  readonly agents: number;
  /** Events written by agents of v1, and acknowledged to those of v2. */
  readonly sent: number;
  readonly commandsReceived: number;
  /** Writes that failed, and dials and handshakes that came to nothing. */
  readonly errors: number;
  /** Agents that will not dial again. */
  readonly stranded: number;
}

const tickMs = 20;
/** One in so many enveloped agents never registers, as in the field. */
const unregisteredShare = 10;

/**
 * Runs a simulation. Connections are opened a few at a time, and those that are open report meanwhile. Resolves with
 * the totals when every connection is closed; never rejects for what the gateway does.
 */
export async function simulate(options: SimulationOptions): Promise<SimulationTotals> {
  const clock = options.clock ?? systemClock;
  const fleet = new SimulatedFleet(options, clock);
  const reporting = repeat(clock, 1_000, () => options.out(fleet.progressLine()));
  const sending = repeat(clock, tickMs, () => fleet.sendDue());
  const ramping = fleet.connectAll();
  await timeOver(clock, options);
  sending.stop();
  reporting.stop();
  await fleet.close();
  await ramping;
  return fleet.totals();
}

interface Member {
  readonly agent: SimulatedAgent;
  readonly telemetry: Telemetry;
}

class SimulatedFleet {
  readonly #options: SimulationOptions;
  readonly #clock: AgentClock;
  readonly #members: Member[] = [];
  readonly #startedMs: number;
  #isClosing = false;
  #started = 0;
  #turn = 0;
  #due = 0;
  #lastDueMs: number;
  #sent = 0;
  #sentBefore = 0;
  #writeErrors = 0;

  constructor(options: SimulationOptions, clock: AgentClock) {
    this.#options = options;
    this.#clock = clock;
    this.#startedMs = clock.nowMs();
    this.#lastDueMs = this.#startedMs;
  }

  async connectAll(): Promise<void> {
    const lanes = Math.min(this.#options.connectConcurrency ?? 20, this.#options.agents);
    await Promise.all(Array.from({ length: lanes }, () => this.#connectInTurn()));
  }

  /** Writes what has fallen due since the last call, each event from the next agent that is ready. */
  sendDue(): void {
    const nowMs = this.#clock.nowMs();
    const { ratePerSecond } = this.#options;
    this.#due += ((nowMs - this.#lastDueMs) / 1_000) * ratePerSecond;
    this.#lastDueMs = nowMs;
    // What nobody could send is not made up for in one burst, beyond a second's worth.
    this.#due = Math.min(this.#due, Math.max(ratePerSecond, 1));
    while (this.#due >= 1) {
      const member = this.#nextReady();
      if (!member) return;
      this.#due -= 1;
      this.#report(member);
    }
  }

  progressLine(): string {
    const { agents, commandsReceived, errors, stranded } = this.totals();
    const connected = this.#members.filter(({ agent }) => agent.isConnected).length;
    const seconds = Math.round((this.#clock.nowMs() - this.#startedMs) / 1_000);
    const sentNow = this.#sent - this.#sentBefore;
    this.#sentBefore = this.#sent;
    return `${seconds} s · connected ${connected}/${agents} · sent ${sentNow}/s, ${this.#sent} in all · commands ${commandsReceived} · errors ${errors} · stranded ${stranded}`;
  }

  totals(): SimulationTotals {
    const totals = { agents: this.#options.agents, sent: this.#sent, commandsReceived: 0, errors: this.#writeErrors };
    let stranded = 0;
    for (const { agent } of this.#members) {
      totals.commandsReceived += agent.commandsReceived;
      totals.errors += agent.failures;
      if (agent.isStranded) stranded += 1;
    }
    return { ...totals, stranded };
  }

  async close(): Promise<void> {
    this.#isClosing = true;
    await Promise.all(this.#members.map(({ agent }) => agent.close()));
  }

  async #connectInTurn(): Promise<void> {
    while (!this.#isClosing && this.#started < this.#options.agents) {
      const index = this.#started++;
      const agent = await this.#start(index);
      this.#members.push({ agent, telemetry: this.#telemetryOf(index) });
      // What comes of it is counted by the agent; the next one is started either way.
      if (this.#isClosing) await agent.close();
      else await agent.ready().catch(() => undefined);
    }
  }

  async #start(index: number): Promise<SimulatedAgent> {
    const {
      dialects,
      habits,
      pins = 'trust-first',
      protocol = 'v1',
      socket = {},
      suite = nativeCrypto,
      url,
    } = this.#options;
    const isV2 = protocol === 'v2' || (protocol === 'mixed' && index % 2 === 1);
    const options = { url, agentId: this.#nameOf(index, isV2), suite, clock: this.#clock, socket };
    if (isV2) return startSimulatedV2Agent(options, pins);
    const dialect = dialects[index % dialects.length] ?? dialects[0];
    const registers = index % unregisteredShare !== unregisteredShare - 1;
    return startSimulatedV1Agent(options, dialect, { registers, ...habits });
  }

  /** A name that was seen on v2 is refused on v1 from then on. */
  #nameOf(index: number, isV2: boolean): string {
    const { namePrefix = 'sim' } = this.#options;
    return `${namePrefix}-${isV2 ? 'v2-' : ''}${String(index + 1).padStart(4, '0')}`;
  }

  #telemetryOf(index: number): Telemetry {
    const { seed = 1 } = this.#options;
    return createTelemetry({ seed: seed + index, agentId: this.#nameOf(index, false) });
  }

  #nextReady(): Member | null {
    for (let tried = 0; tried < this.#members.length; tried++) {
      this.#turn = (this.#turn + 1) % this.#members.length;
      const member = this.#members[this.#turn];
      if (member?.agent.isFree) return member;
    }
    return null;
  }

  #report({ agent, telemetry }: Member): void {
    const { kind, body } = telemetry.next();
    agent.report(kind, body).then(
      () => {
        this.#sent += 1;
      },
      () => {
        if (!this.#isClosing) this.#writeErrors += 1;
      },
    );
  }
}

function repeat(clock: AgentClock, everyMs: number, action: () => void): { stop(): void } {
  let cancel = (): void => undefined;
  const again = (): void => {
    cancel = clock.schedule(everyMs, () => {
      again();
      action();
    });
  };
  again();
  return { stop: () => cancel() };
}

function timeOver(clock: AgentClock, options: Pick<SimulationOptions, 'durationMs' | 'signal'>): Promise<void> {
  const { durationMs, signal } = options;
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    const over = (): void => {
      cancel();
      signal.removeEventListener('abort', over);
      resolve();
    };
    const cancel = durationMs === undefined ? () => undefined : clock.schedule(durationMs, over);
    signal.addEventListener('abort', over);
  });
}
