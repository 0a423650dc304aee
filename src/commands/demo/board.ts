import { stripVTControlCharacters, styleText } from 'node:util';

/** One line of what a console shows. */
export interface BoardRow {
  readonly what: 'anomaly' | 'threat' | 'process' | 'presence' | 'command' | 'broadcast' | 'problem';
  /** A severity, a status, or what became of something, in capitals. */
  readonly state: string;
  readonly agentId: string;
  readonly detail: string;
}

/** Prints rows in columns. */
export interface Board {
  title(text: string): void;
  note(text: string): void;
  /** Something that was held against what it should be, and was so. */
  passed(text: string): void;
  row(row: BoardRow): void;
}

type Style = Parameters<typeof styleText>[0];

const stateStyles: Readonly<Record<string, Style>> = {
  CRITICAL: ['bold', 'red'],
  HIGH: 'red',
  MEDIUM: 'yellow',
  LOW: 'cyan',
  INFO: 'dim',
  SEALED: 'magenta',
  QUEUED: 'yellow',
  SENT: 'cyan',
  DELIVERED: 'green',
  DONE: 'green',
  FAILED: ['bold', 'red'],
  EXPIRED: 'red',
  ONLINE: 'green',
  OFFLINE: 'yellow',
  WRONG: ['bold', 'red'],
};

const whatWidth = 9;
const stateWidth = 9;
const agentWidth = 24;

/** `width` is that of the terminal, in columns; null where there is none, and lines are not cut. */
export function createBoard(options: {
  readonly write: (text: string) => void;
  readonly colours: boolean;
  readonly width: () => number | null;
  readonly now: () => Date;
}): Board {
  const { write, colours } = options;
  const styled = (style: Style, text: string) => (colours ? styleText(style, text) : text);
  return {
    title: (text) => write(`${styled('bold', text)}\n`),
    note: (text) => write(`${text}\n`),
    passed: (text) => write(`  ${styled('green', 'ok')}  ${text}\n`),
    row({ what, state, agentId, detail }) {
      const time = options.now().toTimeString().slice(0, 8);
      const agent = printable(agentId).padEnd(agentWidth);
      const room = (options.width() ?? Number.POSITIVE_INFINITY) - 8 - whatWidth - stateWidth - agent.length - 4;
      const shown = cut(printable(detail), Math.max(room, 20));
      const style = stateStyles[state];
      const column = style ? styled(style, state.padEnd(stateWidth)) : state.padEnd(stateWidth);
      write(`${styled('dim', time)} ${what.padEnd(whatWidth)} ${column} ${agent} ${shown}\n`);
    },
  };
}

/** What agents say is theirs to choose: nothing of it may reach the terminal as a command. */
function printable(text: string): string {
  return stripVTControlCharacters(text).replaceAll(/\p{Control}/gu, '\u{fffd}');
}

function cut(text: string, length: number): string {
  return text.length > length ? `${text.slice(0, length - 1)}…` : text;
}
