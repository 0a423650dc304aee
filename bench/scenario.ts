import type { ScenarioName, Sizes } from './options.ts';
import type { Contestant, Server } from './servers.ts';

/** A number that a scenario yields: a row of the report. */
export interface Metric {
  readonly title: string;
  readonly unit: string;
  readonly better: 'more' | 'less';
  readonly decimals: number;
}

export interface Measurement {
  /** One for each of the scenario's metrics, in their order. */
  readonly values: readonly number[];
  /** What makes the numbers worthless: events lost or doubled, a rate not kept. */
  readonly faults: readonly string[];
}

export interface Scenario {
  readonly name: ScenarioName;
  /** Whether it takes a server that can send something to its agents. */
  readonly sendsCommands: boolean;
  metrics(sizes: Sizes): readonly Metric[];
  measure(server: Server, sizes: Sizes): Promise<Measurement>;
}

/** Starts a server for one scenario alone, so that none inherits what another left behind. */
export async function measureOn(contestant: Contestant, scenario: Scenario, sizes: Sizes): Promise<Measurement> {
  const server = await contestant.start();
  try {
    return await scenario.measure(server, sizes);
  } finally {
    await server.stop();
  }
}
