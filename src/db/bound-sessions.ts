import type postgres from 'postgres';

/** Connections on which Postgres itself shows one organisation's rows alone. */
export interface BoundSessions {
  /** Asks one statement in a session that is bound to the organisation, behind others of the organisation where it is busy. */
  ask<Result>(orgId: string, statement: (sql: postgres.Sql) => PromiseLike<Result>): Promise<Result>;
  /** Lends such a session, a client of one connection, to one alone until the work has ended. */
  lend<Result>(orgId: string, work: (sql: postgres.Sql) => PromiseLike<Result>): Promise<Result>;
  close(timeoutSeconds: number): Promise<void>;
}

interface Session {
  readonly sql: postgres.Sql;
  /** What the connection is bound to; null: to nothing yet, and then Postgres refuses whatever reads organisations' rows. */
  orgId: string | null;
  /** Until the database has answered that it is bound so. */
  binding: PromiseLike<unknown> | null;
  /** How many use it. */
  load: number;
  isLent: boolean;
}

interface Use {
  readonly orgId: string;
  /** To this one alone. */
  readonly isLent: boolean;
}

/**
 * `connect` opens a client of one connection in the role that row-level security holds, and tells when that connection is gone. A
 * session is bound anew only where it was another organisation's before, in the same round trip. While none is idle, statements of
 * one organisation follow each other on its busy sessions without waiting for answers, as they do on any other connection; as soon
 * as anyone waits for a session they stop doing so, and whoever comes waits behind.
 */
export function createBoundSessions(
  connect: (onClosed: () => void) => postgres.Sql,
  maxSessions: number,
): BoundSessions {
  const sessions: Session[] = [];
  const idle: Session[] = [];
  const waiting: { readonly use: Use; readonly begin: (session: Session) => void }[] = [];

  function open(): Session {
    const session: Session = {
      sql: connect(() => {
        session.orgId = null;
      }),
      ...{ orgId: null, binding: null, load: 0, isLent: false },
    };
    sessions.push(session);
    return session;
  }

  function take(use: Use): Session | Promise<Session> {
    const own = idle.findIndex((session) => session.orgId === use.orgId);
    const [session] = idle.splice(Math.max(own, 0), 1);
    if (session) return begin(session, use);
    if (sessions.length < maxSessions) return begin(open(), use);
    const busy = use.isLent || waiting.length > 0 ? null : leastBusy(use.orgId);
    if (busy) return begin(busy, use);
    return new Promise((resolve) => waiting.push({ use, begin: resolve }));
  }

  function leastBusy(orgId: string): Session | null {
    let best: Session | null = null;
    for (const session of sessions)
      if (session.orgId === orgId && !session.isLent && session.load < (best?.load ?? Infinity)) best = session;
    return best;
  }

  function begin(session: Session, { orgId, isLent }: Use): Session {
    session.load++;
    session.isLent = isLent;
    if (session.orgId !== orgId) bind(session, orgId);
    return session;
  }

  function bind(session: Session, orgId: string): void {
    const binding = session.sql`select set_config('aegis.org_id', ${orgId}, false)`.execute();
    Object.assign(session, { orgId, binding });
    binding.then(
      () => {
        session.binding = null;
      },
      () => Object.assign(session, { orgId: null, binding: null }),
    );
  }

  function end(session: Session): void {
    session.load--;
    if (session.load > 0) return;
    const next = waiting.shift();
    if (next) next.begin(begin(session, next.use));
    else idle.unshift(session);
  }

  async function run<Result>(use: Use, work: (sql: postgres.Sql) => PromiseLike<Result>): Promise<Result> {
    const session = await take(use);
    try {
      if (session.binding === null) return await work(session.sql);
      const [, result] = await Promise.all([session.binding, work(session.sql)]);
      return result;
    } catch (error) {
      // Perhaps it is bound to nothing now.
      session.orgId = null;
      throw error;
    } finally {
      end(session);
    }
  }

  return {
    ask: (orgId, statement) => run({ orgId, isLent: false }, statement),
    lend: (orgId, work) => run({ orgId, isLent: true }, work),
    async close(timeoutSeconds) {
      await Promise.all(sessions.map(({ sql }) => sql.end({ timeout: timeoutSeconds })));
    },
  };
}
