import { AggregatorRegistry } from 'prom-client';
import { z } from 'zod';

/** What one worker has measured, as text. JSON has no NaN, which a gauge may say that has seen nothing yet. */
const workerReport = z.object({
  worker: z.number(),
  metrics: z.array(
    z.looseObject({
      values: z.array(
        z.looseObject({
          labels: z.record(z.string(), z.union([z.string(), z.number()])),
          value: z.number().nullable(),
        }),
      ),
    }),
  ),
});

/** `metrics` as `Registry.getMetricsAsJSON` gives them. */
export function reportOf(worker: number, metrics: readonly object[]): string {
  return JSON.stringify({ worker, metrics });
}

/**
 * What several workers have measured, in the exposition format of Prometheus: nothing is added up, each sample has the number of
 * its worker for a label. So a worker that starts anew shows as what it is, counters that begin at zero again.
 */
export async function exposeTogether(
  reports: readonly string[],
): Promise<{ readonly contentType: string; readonly body: string }> {
  const labelled = reports.map((text) => {
    const { worker, metrics } = workerReport.parse(JSON.parse(text));
    return metrics.map((metric) => ({
      ...metric,
      // Of one sample each; some would leave theirs out.
      aggregator: 'sum',
      values: metric.values.map((sample) => ({
        ...sample,
        labels: { ...sample.labels, worker: String(worker) },
        value: sample.value ?? Number.NaN,
      })),
    }));
  });
  const registry = AggregatorRegistry.aggregate(labelled);
  return { contentType: registry.contentType, body: await registry.metrics() };
}
