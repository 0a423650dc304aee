import { auditServer } from 'graphql-http';
import { expect, test } from 'vitest';
import { startConsumerStage } from './consumer-stage.ts';

test('the audits of graphql-http find neither an error nor a warning', async () => {
  const stage = await startConsumerStage();
  try {
    const results = await auditServer({
      url: `${stage.gateway.url}/graphql`,
      fetchFn: (url: string, init: RequestInit = {}) => {
        const headers = new Headers(init.headers);
        headers.set('authorization', `Bearer ${stage.gateway.token}`);
        return fetch(url, { ...init, headers });
      },
    });
    expect(results.length).toBeGreaterThan(50);
    expect(results.flatMap((result) => (result.status === 'ok' ? [] : [`${result.name}: ${result.reason}`]))).toEqual(
      [],
    );
  } finally {
    await stage.stop();
  }
});
