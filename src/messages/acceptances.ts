import postgres from 'postgres';
import type { Acceptance, AcceptanceQueries, AcceptanceRequest } from './acceptance-queries.ts';

/** Accepts messages, those that are asked for while a statement is under way together in the next one. */
export interface Acceptances {
  /** Resolves when the answer is committed. Rejects where nobody knows whether it is. */
  accept(request: AcceptanceRequest): Promise<Acceptance>;
}

interface Waiting {
  readonly request: AcceptanceRequest;
  readonly answer: (acceptance: Acceptance | Promise<Acceptance>) => void;
  readonly fail: (error: unknown) => void;
}

/** Small enough that a statement is soon over, and large enough that its round trip and its commit cost each one little. */
const maxAtOnce = 32;
const maxBytesAtOnce = 2 * 1024 * 1024;

/** `statements`: how many may be under way at once. */
export function createAcceptances(queries: AcceptanceQueries, statements: number): Acceptances {
  let waiting: Waiting[] = [];
  let underWay = 0;

  function proceed(): void {
    while (underWay < statements && waiting.length > 0) void decide(takeGroup());
  }

  /** In their order, and of one organisation: to one the database binds a statement. */
  function takeGroup(): Waiting[] {
    const orgId = waiting[0]?.request.by.orgId;
    const group: Waiting[] = [];
    const left: Waiting[] = [];
    let bytes = 0;
    let isFull = false;
    for (const each of waiting) {
      const isOf = each.request.by.orgId === orgId;
      bytes += isOf ? each.request.message.payloadText.length : 0;
      isFull ||= group.length === maxAtOnce || (group.length > 0 && bytes > maxBytesAtOnce);
      (isOf && !isFull ? group : left).push(each);
    }
    waiting = left;
    return group;
  }

  /** Never rejects. */
  async function decide(group: readonly Waiting[]): Promise<void> {
    underWay++;
    try {
      const answers = await queries.acceptAll(
        { orgId: group[0]?.request.by.orgId ?? null },
        group.map(({ request }) => request),
      );
      for (const [index, { request, answer }] of group.entries()) {
        const given = answers[index];
        answer(given === undefined || given === 'crowded' ? queries.acceptAlone(request) : given);
      }
    } catch (error) {
      // The database has refused them all, for one's sake perhaps: nothing was done, and each is asked for by itself.
      const isUndone = error instanceof postgres.PostgresError && group.length > 1;
      for (const { request, answer, fail } of group) isUndone ? answer(queries.acceptAlone(request)) : fail(error);
    }
    underWay--;
    proceed();
  }

  return {
    accept: (request) =>
      new Promise((answer, fail) => {
        waiting.push({ request, answer, fail });
        proceed();
      }),
  };
}
