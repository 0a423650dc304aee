import type { Bus } from '../../src/bus/bus.ts';
import { type CarrierListener, createRelayedBus } from '../../src/bus/relay.ts';
import { systemClock } from '../../src/clock.ts';

/** Everyone who listens on one wire, which a test may cut or hold up. */
export interface Wire {
  readonly listeners: Map<CarrierListener, { takesBodies: boolean }>;
  readonly texts: string[];
  readonly bodies: string[];
  state: 'carries' | 'loses' | 'loses bodies' | 'keeps waiting';
}

export const createWire = (): Wire => ({ listeners: new Map(), texts: [], bodies: [], state: 'carries' });

/** A gateway's bus on the wire. */
export function joinWire(
  wire: Wire,
  instanceId: string,
  deps: Partial<Parameters<typeof createRelayedBus>[1]> = {},
): Promise<Bus> {
  const logError = deps.logError ?? (() => {});
  return createRelayedBus(
    async (listener) => {
      wire.listeners.set(listener, { takesBodies: false });
      let last = Promise.resolve();
      async function carry(deliver: () => void): Promise<void> {
        if (wire.state === 'loses') throw new Error('cut');
        while (wire.state === 'keeps waiting') await new Promise((resolve) => setTimeout(resolve, 5));
        deliver();
      }
      function inTurn(deliver: () => void): Promise<void> {
        const sent = last.then(() => carry(deliver));
        last = sent.catch(() => {});
        return sent;
      }
      return {
        send: (text) =>
          inTurn(() => {
            wire.texts.push(text);
            for (const { heard } of wire.listeners.keys()) heard(text);
          }),
        sendBodies: (text) =>
          inTurn(() => {
            if (wire.state === 'loses bodies') throw new Error('no room');
            wire.bodies.push(text);
            for (const [other, { takesBodies }] of wire.listeners)
              if (other !== listener && takesBodies) other.heardBodies(text);
          }),
        takeBodies: (takesBodies) => void wire.listeners.set(listener, { takesBodies }),
        check: async () => {},
        close: () => void wire.listeners.delete(listener),
      };
    },
    { instanceId, clock: systemClock, ...deps, logError },
  );
}
