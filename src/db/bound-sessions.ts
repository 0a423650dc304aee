import type postgres from 'postgres';

/** Connections on which Postgres itself shows one organisation's rows alone. */
export interface BoundSessions {
  /** Lends a session of one connection that is bound to the organisation, until the work has ended. */
  lend<Result>(orgId: string, work: (sql: postgres.Sql) => PromiseLike<Result>): Promise<Result>;
  close(timeoutSeconds: number): Promise<void>;
}

interface Session {
  readonly sql: postgres.Sql;
  /** What the connection is bound to; null: to nothing yet, and then Postgres refuses whatever reads organisations' rows. */
  orgId: string | null;
}

/**
 * `connect` opens a client of one connection in the role that row-level security holds, and tells when that connection is gone. A
 * session is lent to one at a time and bound anew only where it was another organisation's before, in the same round trip.
 */
export function createBoundSessions(
  connect: (onClosed: () => void) => postgres.Sql,
  maxSessions: number,
): BoundSessions {
  const sessions: Session[] = [];
  const idle: Session[] = [];
  const waiting: ((session: Session) => void)[] = [];

  function open(): Session {
    const session: Session = {
      sql: connect(() => {
        session.orgId = null;
      }),
      orgId: null,
    };
    sessions.push(session);
    return session;
  }

  function take(orgId: string): Session | Promise<Session> {
    const own = idle.findIndex((session) => session.orgId === orgId);
    const [session] = idle.splice(Math.max(own, 0), 1);
    if (session) return session;
    if (sessions.length < maxSessions) return open();
    return new Promise((resolve) => waiting.push(resolve));
  }

  function give(session: Session): void {
    const next = waiting.shift();
    if (next) next(session);
    else idle.unshift(session);
  }

  async function bind<Result>(session: Session, orgId: string, work: (sql: postgres.Sql) => PromiseLike<Result>) {
    const binding = session.sql`select set_config('aegis.org_id', ${orgId}, false)`.execute();
    session.orgId = orgId;
    const [, result] = await Promise.all([binding, work(session.sql)]);
    return result;
  }

  return {
    async lend(orgId, work) {
      const session = await take(orgId);
      try {
        return await (session.orgId === orgId ? work(session.sql) : bind(session, orgId, work));
      } catch (error) {
        // Perhaps it is bound to nothing now, or was never bound.
        session.orgId = null;
        throw error;
      } finally {
        give(session);
      }
    },
    async close(timeoutSeconds) {
      await Promise.all(sessions.map(({ sql }) => sql.end({ timeout: timeoutSeconds })));
    },
  };
}
