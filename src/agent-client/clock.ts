/** Time as the agent sees it; tests put their own in its place. */
export interface AgentClock {
  /** Milliseconds since the Unix epoch. */
  nowMs(): number;
  /** Runs `action` once, `delayMs` from now. The answer cancels it; cancelling twice, or too late, does nothing. */
  schedule(delayMs: number, action: () => void): () => void;
}

/** The clock of the machine. */
export const systemClock: AgentClock = {
  nowMs: () => Date.now(),
  schedule(delayMs, action) {
    const timer = setTimeout(action, delayMs);
    return () => clearTimeout(timer);
  },
};
