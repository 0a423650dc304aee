import type { WorkersChannel } from '../bus/workers-bus.ts';
import { type Assignment, createSend, readToWorker, type Subject, type ToPrimary, type ToWorker } from './talk.ts';

/** How a worker is to end: others have taken its place; all end; or the primary is gone. */
export type Ending = 'retire' | 'stop' | 'orphaned';

/** The workers of this machine, as one of them reaches the others: by way of the primary. */
export interface Siblings {
  readonly assignment: Assignment;
  /** Brings what is told about this to the others, and what they tell. */
  channel(about: Subject): WorkersChannel;
  /** What every worker that serves reports, this one among them. Rejects where the primary does not answer. */
  gather(): Promise<readonly string[]>;
  /** Has `report` asked whenever some worker gathers. */
  answerWith(report: () => Promise<string>): void;
}

/** The primary as its worker sees it. */
export interface Primary {
  readonly siblings: Siblings;
  /** This worker serves from now on. */
  serves(): void;
  /** This worker would leave: `ending` comes. */
  wantsToLeave(): void;
  onReload(reload: () => void): void;
  readonly ending: Promise<Ending>;
  /** Lets go of the primary, so that nothing keeps the process. */
  leave(): void;
}

type Told = (text: string) => void;

const gatherTimeoutMs = 5_000;

/** Says hello to the primary that began this process. Null where none did. */
export async function meetPrimary(): Promise<Primary | null> {
  if (!process.connected) return null;
  const send = createSend<ToPrimary>((message, sent) => process.send?.(message, undefined, undefined, sent));
  const told = new Map<string, Set<Told>>();
  const gathering = new Map<number, (texts: readonly string[]) => void>();
  let lastGathering = 0;
  let report = async () => '';
  let reload = () => {};
  let begin = (_assignment: Assignment) => {};
  let end = (_ending: Ending) => {};
  const begun = new Promise<Assignment>((resolve) => {
    begin = resolve;
  });
  const ending = new Promise<Ending>((resolve) => {
    end = resolve;
  });

  function take(message: ToWorker): void {
    if (message.say === 'begin') begin(message.assignment);
    else if (message.say === 'told') for (const listener of told.get(message.about) ?? []) listener(message.text);
    else if (message.say === 'report') void answer(message.id);
    else if (message.say === 'reports') gathering.get(message.id)?.(message.texts);
    else if (message.say === 'reload') reload();
    else end(message.say);
  }

  /** One that cannot tell is left out. */
  async function answer(id: number): Promise<void> {
    const text = await report().catch(() => null);
    if (text !== null) send({ say: 'reported', id, text });
  }

  process.on('message', (raw) => {
    const message = readToWorker(raw);
    if (message) take(message);
  });
  process.once('disconnect', () => end('orphaned'));
  send({ say: 'hello' });
  const assignment = await Promise.race([begun, ending.then(() => null)]);
  if (!assignment) return null;

  return {
    siblings: {
      assignment,
      channel: (about) => ({
        tell: (text) =>
          new Promise((resolve, reject) => {
            send({ say: 'tell', about, text }, (error) => (error ? reject(error) : resolve()));
          }),
        onTold(listener) {
          const listeners = told.get(about) ?? new Set();
          told.set(about, listeners.add(listener));
          return () => listeners.delete(listener);
        },
        get isConnected() {
          return process.connected;
        },
      }),
      async gather() {
        const id = ++lastGathering;
        try {
          return await new Promise<readonly string[]>((resolve, reject) => {
            setTimeout(() => reject(new Error('the primary does not answer')), gatherTimeoutMs).unref();
            gathering.set(id, resolve);
            send({ say: 'gather', id });
          });
        } finally {
          gathering.delete(id);
        }
      },
      answerWith(asked) {
        report = asked;
      },
    },
    serves: () => send({ say: 'ready' }),
    wantsToLeave: () => send({ say: 'leaving' }),
    onReload(listener) {
      reload = listener;
    },
    ending,
    leave: () => process.connected && process.disconnect(),
  };
}
