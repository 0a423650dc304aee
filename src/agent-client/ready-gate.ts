import type { AgentFailure } from './agent-failure.ts';

interface Waiter {
  readonly resolve: () => void;
  readonly reject: (failure: Error) => void;
}

/** Lets callers wait for an agent that can be ready, not ready yet or again, or beyond hope. */
export class ReadyGate {
  readonly #waiters = new Set<Waiter>();
  #isOpen = false;
  #lockedBy: AgentFailure | null = null;

  /** Resolves while open, rejects once locked, and otherwise waits for either, `timeoutMs` real milliseconds at most. */
  pass(timeoutMs: number): Promise<void> {
    if (this.#lockedBy) return Promise.reject(this.#lockedBy);
    if (this.#isOpen) return Promise.resolve();
    return new Promise((resolve, reject) => {
      const waiter: Waiter = {
        resolve: () => {
          clearTimeout(timer);
          resolve();
        },
        reject: (failure) => {
          clearTimeout(timer);
          reject(failure);
        },
      };
      const timer = setTimeout(() => {
        this.#waiters.delete(waiter);
        reject(new Error(`the agent was not ready within ${timeoutMs} ms`));
      }, timeoutMs);
      this.#waiters.add(waiter);
    });
  }

  open(): void {
    this.#isOpen = true;
    for (const waiter of this.#drain()) waiter.resolve();
  }

  shut(): void {
    this.#isOpen = false;
  }

  /** For good; the first reason stays. */
  lock(failure: AgentFailure): void {
    this.#lockedBy ??= failure;
    for (const waiter of this.#drain()) waiter.reject(this.#lockedBy);
  }

  #drain(): Waiter[] {
    const waiters = [...this.#waiters];
    this.#waiters.clear();
    return waiters;
  }
}
