import type { Upgrade } from '../http/upgrade.ts';
import type { AdmissionGate, LeavePlace } from './admission-gate.ts';

/**
 * Keeps an upgrade waiting for its place, before the 101: a socket and the request, and nothing of WebSocket's yet. Whoever
 * goes away meanwhile is forgotten.
 */
export function holdUpgrade(
  gate: Pick<AdmissionGate, 'wait'>,
  address: string,
  { socket, waitedMs }: Pick<Upgrade, 'socket' | 'waitedMs'>,
  decided: { readonly admitted: (leave: LeavePlace) => void; readonly refused: () => void },
): void {
  let withdraw = () => {};
  const ends = ['end', 'close', 'error'] as const;

  function forget(): void {
    withdraw();
    letGo();
    socket.destroy();
  }

  function letGo(): void {
    for (const end of ends) socket.off(end, forget);
  }

  for (const end of ends) socket.on(end, forget);
  const waiter = {
    admit(leave: LeavePlace) {
      letGo();
      decided.admitted(leave);
    },
    refuse() {
      letGo();
      decided.refused();
    },
  };
  withdraw = gate.wait(address, waiter, waitedMs);
}
