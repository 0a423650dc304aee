import type { Database } from '../db/database.ts';

/**
 * Which hours of the stream can hold a range of positions: what lets Postgres leave out the partitions of all other hours
 * when it plans a query. Hours that are not known yet cost time and nothing else.
 */
export interface StreamHours {
  /** Hours that can hold positions between the two, both exclusive, null being no bound: from `from`, before `until`. */
  holding(after: number | null, before: number | null): { readonly from: number; readonly until: number };
  /** When the first hour that is not before this one began; null where that is not known, or still to come. */
  beganAtMs(hour: number): number | null;
  /** Finds out what hours have begun since. */
  learn(): Promise<void>;
  /** Forgets where hours before this one begin, of which nothing is left. */
  forgetBefore(hour: number): Promise<void>;
}

interface HourMark {
  readonly hour: number;
  readonly firstPosition: number;
  readonly beganAtMs: number;
}

const noHour = 0;
const endOfHours = 2 ** 31 - 1;

export function createStreamHours({ sql }: Pick<Database, 'sql'>): StreamHours {
  /** In the order of both hours and positions. */
  let marks: HourMark[] = [];

  return {
    holding(after, before) {
      // What lies beyond the newest mark may be of a later hour than it, which only the database knows.
      const from = after === null ? undefined : marks.findLast(({ firstPosition }) => firstPosition <= after + 1);
      const until = before === null ? undefined : marks.find(({ firstPosition }) => firstPosition >= before);
      return { from: from?.hour ?? noHour, until: until?.hour ?? endOfHours };
    },
    beganAtMs: (hour) => marks.find((mark) => mark.hour >= hour)?.beganAtMs ?? null,
    async learn() {
      const last = marks.at(-1)?.hour ?? noHour - 1;
      const rows = await sql<{ hour: number; first_position: number; began_at: Date }[]>`
        select hour, first_position, began_at from event_hours where hour > ${last} order by hour`;
      marks.push(
        ...rows.map((row) => ({
          hour: row.hour,
          firstPosition: row.first_position,
          beganAtMs: new Date(row.began_at).getTime(),
        })),
      );
    },
    async forgetBefore(before) {
      const kept = marks.filter(({ hour }) => hour >= before);
      if (kept.length === marks.length) return;
      await sql`delete from event_hours where hour < ${before}`;
      marks = kept;
    },
  };
}
