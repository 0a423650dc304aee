import { expect, it } from 'vitest';
import { createWorkersBus, type WorkersChannel } from '../../src/bus/workers-bus.ts';
import { systemClock } from '../../src/clock.ts';
import { createExchange } from '../../src/workers/exchange.ts';
import type { Subject, ToWorker } from '../../src/workers/talk.ts';
import { type OpenBus, testBus, testBusBetweenGateways } from './contract.ts';

/** The primary's exchange; messages go through JSON, as between processes, one after the other. */
const exchange = createExchange(systemClock);

function channel(about: Subject): WorkersChannel {
  let hear = (_text: string) => {};
  const member = {
    send(message: ToWorker) {
      if (message.say === 'told' && message.about === about) setImmediate(() => hear(message.text));
    },
  };
  // Who listens to nothing is a member all the same: what it tells goes to the others.
  exchange.join(member);
  return {
    isConnected: true,
    tell: async (text) => exchange.take(member, { say: 'tell', about, text }),
    onTold(listener) {
      hear = listener;
      return () => {
        hear = () => {};
      };
    },
  };
}

const channels = () => ({ hints: channel('bus'), bodies: channel('bodies') });
const open: OpenBus = (logError, instanceId) =>
  createWorkersBus(channels(), { instanceId, clock: systemClock, logError });

testBus('the bus between workers', open);
testBusBetweenGateways('the bus between workers', open);

it('fails its check where the primary is gone', async () => {
  const deps = { instanceId: 'one', clock: systemClock, logError: () => {} };
  const bus = await createWorkersBus({ ...channels(), hints: { ...channel('bus'), isConnected: false } }, deps);
  await expect(bus.check()).rejects.toThrow('the other workers cannot be reached');
  await bus.close();
});
