/**
 * Work that many ask for at once, done for all of them together: while a group is at work the next one gathers, so an ask is
 * served at once where nothing else goes on, and hundreds of them share a transaction in a storm.
 */
export function createGroups<Ask, Answer>(options: {
  /** Groups at work at the same time, at most. */
  readonly lanes: number;
  /** Beside another one, a group begins with so many asks at least: what a group costs, it costs for all of them together. */
  readonly leastBeside: number;
  readonly maxAsks: number;
  /** What an ask is about; asks that share a key are never at work at the same time, and come in their order. */
  keysOf(ask: Ask): readonly string[];
  /** An outcome for each ask; an Error among them is that ask's alone. What it throws undoes the whole group. */
  work(asks: readonly Ask[]): Promise<readonly (Answer | Error)[]>;
}): (ask: Ask) => Promise<Answer> {
  interface Waiting {
    readonly ask: Ask;
    readonly keys: readonly string[];
    readonly resolve: (answer: Answer) => void;
    readonly reject: (error: unknown) => void;
  }
  const busy = new Set<string>();
  let waiting: Waiting[] = [];
  let atWork = 0;
  let isScheduled = false;

  function schedule(): void {
    if (isScheduled || waiting.length === 0) return;
    isScheduled = true;
    // After what this turn of the loop has read.
    setImmediate(() => {
      isScheduled = false;
      while (atWork < options.lanes && (atWork === 0 || waiting.length >= options.leastBeside)) {
        const group = takeGroup();
        if (group.length === 0) return;
        void serve(group);
      }
    });
  }

  function takeGroup(): Waiting[] {
    const group: Waiting[] = [];
    const left: Waiting[] = [];
    const passedOver = new Set<string>();
    for (const each of waiting) {
      const isFree = group.length < options.maxAsks && !each.keys.some((key) => busy.has(key) || passedOver.has(key));
      if (isFree) group.push(each);
      else left.push(each);
      for (const key of each.keys) (isFree ? busy : passedOver).add(key);
    }
    waiting = left;
    return group;
  }

  async function serve(group: readonly Waiting[]): Promise<void> {
    atWork++;
    try {
      await settle(group);
    } finally {
      atWork--;
      for (const { keys } of group) for (const key of keys) busy.delete(key);
      schedule();
    }
  }

  async function settle(group: readonly Waiting[]): Promise<void> {
    try {
      const outcomes = await options.work(group.map(({ ask }) => ask));
      for (const [index, { resolve, reject }] of group.entries()) {
        const outcome = outcomes[index];
        if (outcome instanceof Error) reject(outcome);
        else if (outcome === undefined) reject(new Error('a group left one of its asks without an outcome'));
        else resolve(outcome);
      }
    } catch (error) {
      // One that the database refuses must not spoil it for the others; a database that is away is away for all of them.
      if (group.length > 1 && isRefusal(error)) for (const each of group) await settle([each]);
      else for (const { reject } of group) reject(error);
    }
  }

  return (ask) =>
    new Promise((resolve, reject) => {
      waiting.push({ ask, keys: options.keysOf(ask), resolve, reject });
      schedule();
    });
}

/** Whether it is what was asked that failed: SQLSTATE classes 22 and 23, bad data; 40, deadlocks; 54, too much. */
function isRefusal(error: unknown): boolean {
  const isSqlState = error instanceof Error && 'code' in error && /^(?:22|23|40|54)...$/.test(String(error.code));
  return isSqlState || error instanceof TypeError || error instanceof RangeError;
}
