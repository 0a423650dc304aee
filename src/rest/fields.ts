import { z } from '@hono/zod-openapi';
import { isStorableText, maxValueDepth } from './sound-json.ts';

/** Longest name, uid, host id, organisation or idempotency key, in characters: what the tables hold. */
export const maxNameCharacters = 255;

/** Longest note that an operator may write about an agent, in characters. */
export const maxNoteCharacters = 10_000;

/** Longest label, and how many of them one change may add or take away. */
const maxLabelCharacters = 100;
const maxLabelsAtOnce = 64;

/** A name: 1 to 255 characters, none of them a control character or half of a surrogate pair. */
export const nameText = nameUpTo(maxNameCharacters);

/** Labels to add or to take away; null is none. */
export const labelList = z.array(nameUpTo(maxLabelCharacters)).max(maxLabelsAtOnce).nullish();

/** A name that may be left out; callers write null or nothing at all for that, too. */
export const optionalName = nameText
  .or(z.literal(''))
  .nullish()
  .transform((text) => text || undefined)
  .openapi({ type: ['string', 'null'], maxLength: maxNameCharacters });

/** The agent in a route. What cannot be a name or uid is no agent: the hook for parameters answers 404. */
export const agentRef = nameText.openapi({ description: "An agent's name or uid; names may hold dots." });

/** Any JSON. Depth, NUL, surrogates and `__proto__` were looked at when the body was parsed. */
export const anyJson = z.unknown().openapi({
  description: `Any JSON that nests ${maxValueDepth} deep at most.`,
});

/** The same, where null says that there is nothing to tell. */
export const optionalJson = anyJson.optional().transform((value) => value ?? undefined);

/** A time as RFC 3339 writes it. */
export const time = z.string().openapi({ format: 'date-time', example: '2026-11-23T12:10:34.000Z' });

function nameUpTo(maxCharacters: number) {
  return z
    .string()
    .refine(
      (text) => isName(text, maxCharacters),
      `must have 1 to ${maxCharacters} characters, none of them a control character`,
    )
    .openapi({ minLength: 1, maxLength: maxCharacters });
}

/** Whether a text can name something. Characters are code points, as Postgres counts them. */
function isName(text: string, maxCharacters: number): boolean {
  // Cheap first: a code point takes at most two units.
  if (text.length === 0 || text.length > 2 * maxCharacters) return false;
  return [...text].length <= maxCharacters && isStorableText(text) && !/\p{Control}/u.test(text);
}
