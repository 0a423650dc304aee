import { appendFileSync, existsSync, readFileSync } from 'node:fs';
import { z } from 'zod';

/** One fault in one seed that everyone recovered from and that broke nothing. */
export interface Round {
  readonly seed: number;
  readonly fault: string;
  /** What was chosen at random. */
  readonly notes: string;
  readonly tookMs: number;
}

/** What happened in one seed, or a part of its rounds, up to the end of it, at which nothing was wrong either. */
export interface Ending {
  readonly seed: number;
  readonly counts: Readonly<Record<string, number>>;
}

const line = z.union([
  z.object({ seed: z.number(), fault: z.string(), notes: z.string(), tookMs: z.number() }),
  z.object({ seed: z.number(), counts: z.record(z.string(), z.number()) }),
]);

/** What has been done: in a file where one is named, so that a run that was cut short goes on where it ended. */
export interface Journal {
  readonly rounds: readonly Round[];
  readonly endings: readonly Ending[];
  note(entry: Round | Ending): void;
  isDone(seed: number, fault: string): boolean;
}

export function openJournal(path: string | undefined): Journal {
  const text = path !== undefined && existsSync(path) ? readFileSync(path, 'utf8') : '';
  const entries: (Round | Ending)[] = text
    .split('\n')
    .filter((each) => each !== '')
    .map((each) => line.parse(JSON.parse(each)));
  const rounds = () => entries.filter((entry) => 'fault' in entry);
  return {
    get rounds() {
      return rounds();
    },
    get endings() {
      return entries.filter((entry) => 'counts' in entry);
    },
    note(entry) {
      entries.push(entry);
      if (path !== undefined) appendFileSync(path, `${JSON.stringify(entry)}\n`);
    },
    isDone: (seed, fault) => rounds().some((round) => round.seed === seed && round.fault === fault),
  };
}
