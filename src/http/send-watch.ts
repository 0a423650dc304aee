/** Knows whether a reader takes what is sent to it. */
export interface SendWatch {
  /** Call when something is handed over to the socket, and what it returns once the kernel has taken it. */
  begin(): () => void;
  /** How it is: `idle` where nothing waits for the kernel, `stuck` where something did at the look before and nothing has moved since. */
  look(): 'idle' | 'waiting' | 'stuck';
}

/**
 * It counts what moves and keeps no time: whoever looks at regular times knows how long nothing did, and a process that was
 * itself suspended blames no reader for it.
 */
export function createSendWatch(): SendWatch {
  let waiting = 0;
  let moved = 0;
  /** What had moved when something was seen to wait; null where nothing was. */
  let seen: number | null = null;
  return {
    begin() {
      waiting++;
      let isTaken = false;
      return () => {
        if (isTaken) return;
        isTaken = true;
        waiting--;
        moved++;
      };
    },
    look() {
      const isStuck = waiting > 0 && seen === moved;
      seen = waiting > 0 ? moved : null;
      if (isStuck) return 'stuck';
      return waiting > 0 ? 'waiting' : 'idle';
    },
  };
}
