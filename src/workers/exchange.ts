import type { Clock } from '../clock.ts';
import type { ToPrimary, ToWorker } from './talk.ts';

/** One who takes part. */
export interface Member {
  send(message: ToWorker): void;
}

/** Passes on what workers tell each other, and gathers what all of them report for one that asks. */
export interface Exchange {
  /** Returns what takes it out again. */
  join(member: Member): () => void;
  take(from: Member, message: ToPrimary): void;
}

interface Question {
  readonly asker: Member;
  /** As the asker numbers it. */
  readonly id: number;
  readonly awaited: Set<Member>;
  readonly texts: string[];
  readonly cancel: () => void;
}

/** A worker that says nothing for so long is left out. */
const answerTimeoutMs = 3_000;

export function createExchange(clock: Clock): Exchange {
  const members = new Set<Member>();
  const questions = new Map<number, Question>();
  let lastQuestion = 0;

  function ask(asker: Member, id: number): void {
    const number = ++lastQuestion;
    const cancel = clock.after(answerTimeoutMs, () => answer(number));
    questions.set(number, { asker, id, awaited: new Set(members), texts: [], cancel });
    for (const member of members) member.send({ say: 'report', id: number });
  }

  function answer(number: number): void {
    const question = questions.get(number);
    if (!question) return;
    questions.delete(number);
    question.cancel();
    question.asker.send({ say: 'reports', id: question.id, texts: question.texts });
  }

  return {
    join(member) {
      members.add(member);
      return () => {
        members.delete(member);
        for (const [number, { awaited }] of questions) if (awaited.delete(member) && awaited.size === 0) answer(number);
      };
    },
    take(from, message) {
      if (message.say === 'tell') {
        const { about, text } = message;
        for (const member of members) if (member !== from) member.send({ say: 'told', about, text });
      } else if (message.say === 'gather') ask(from, message.id);
      else if (message.say === 'reported') {
        const question = questions.get(message.id);
        if (!question?.awaited.delete(from)) return;
        question.texts.push(message.text);
        if (question.awaited.size === 0) answer(message.id);
      }
    },
  };
}
