import { type Clock, repeat } from '../clock.ts';
import type { Database } from '../db/database.ts';
import type { ErrorCode } from '../errors.ts';

/** An agent that was refused, as far as it is known. */
export interface RefusedAgent {
  readonly orgId: string;
  /** Null: not enrolled. */
  readonly uid: string | null;
  readonly name: string;
}

export interface Refusal {
  readonly action: 'agent.refused' | 'agent.frame-refused' | 'handshake.refused';
  /** Null: nobody has proved to be anyone. */
  readonly agent: RefusedAgent | null;
  readonly protocol: 'v1' | 'v2';
  readonly code: ErrorCode;
  readonly clientAddress: string | null;
}

/** Told of refusals. */
export type NoteRefusal = (refusal: Refusal) => void;

/**
 * Refusals of agents, summed up: an entry for each agent and reason in each minute, however many there were, and for the
 * hundredth agent on one for all that are left, so that nobody fills the log by being refused. What a gateway has not written
 * when it is killed is lost; nothing was changed.
 */
export interface Refusals {
  readonly note: NoteRefusal;
  start(): void;
  /** Writes what was noted. */
  stop(): Promise<void>;
}

interface Sum {
  readonly refusal: Refusal;
  readonly firstAtMs: number;
  lastAtMs: number;
  count: number;
}

const intervalMs = 60_000;
/** In one interval, of one gateway. */
const maxSums = 100;

export function createRefusals(deps: {
  readonly database: Database;
  readonly clock: Clock;
  readonly logError: (error: unknown, context: string) => void;
}): Refusals {
  const { clock } = deps;
  const { sql } = deps.database;
  let sums = new Map<string, Sum>();
  let stopRepeating = () => {};

  function add(key: string, refusal: Refusal, count: number, firstAtMs: number, lastAtMs: number): void {
    const sum = sums.get(key);
    if (sum) {
      sum.count += count;
      sum.lastAtMs = Math.max(sum.lastAtMs, lastAtMs);
    } else sums.set(key, { refusal, firstAtMs, lastAtMs, count });
  }

  function keyOf({ action, agent, code }: Refusal): string {
    return JSON.stringify([action, agent?.orgId ?? null, agent?.uid ?? agent?.name ?? null, code]);
  }

  async function write(): Promise<void> {
    if (sums.size === 0) return;
    const writing = sums;
    sums = new Map();
    try {
      await insert([...writing.values()]);
    } catch (error) {
      for (const [key, { refusal, count, firstAtMs, lastAtMs }] of writing)
        add(key, refusal, count, firstAtMs, lastAtMs);
      throw error;
    }
  }

  async function insert(written: readonly Sum[]): Promise<void> {
    const entries = written.map(({ refusal, count, firstAtMs, lastAtMs }) => {
      const { action, agent, protocol, code, clientAddress } = refusal;
      const isKnown = agent !== null && agent.uid !== null;
      return {
        ...{ action, outcome: code, org: agent?.orgId ?? null, address: clientAddress },
        subject: agent ? (agent.uid ?? agent.name) : 'unknown',
        name: agent?.name ?? null,
        actor: isKnown ? agent.uid : 'unknown',
        label: agent?.name ?? 'somebody unknown',
        details: { protocol, count, first: new Date(firstAtMs).toISOString(), last: new Date(lastAtMs).toISOString() },
      };
    });
    await sql`
      insert into audit_pending (org_id, subject_type, subject_id, subject_name, details, actor_kind, actor_id, actor_label,
        address, action, outcome)
      select org, split_part(action, '.', 1), subject, name, details, 'agent', actor, label, address, action, outcome
      from json_to_recordset(${JSON.stringify(entries)}::text::json) as entry (action text, outcome text, org text,
        address text, subject text, name text, actor text, label text, details json)`;
  }

  return {
    note(refusal) {
      const nowMs = clock.now();
      const key = keyOf(refusal);
      const isLeftOver = !sums.has(key) && sums.size >= maxSums && refusal.agent !== null;
      if (!isLeftOver) return add(key, refusal, 1, nowMs, nowMs);
      // Whoever invents names is nobody in particular.
      const rest: Refusal = { ...refusal, action: 'handshake.refused', agent: null, clientAddress: null };
      return add(keyOf(rest), rest, 1, nowMs, nowMs);
    },
    start() {
      stopRepeating = repeat(clock, intervalMs, write, (error) =>
        deps.logError(error, 'refusals of agents could not be put on record'),
      );
    },
    async stop() {
      stopRepeating();
      await write();
    },
  };
}
