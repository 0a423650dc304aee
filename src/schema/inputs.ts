import { z } from 'zod';
import { auditedActionNames } from '../audit/actions.ts';
import { AegisError } from '../errors.ts';
import type { AgentFilter } from '../fleet/agent.ts';
import { maxTokenLifeSeconds } from '../fleet/enrollment-tokens.ts';
import { agentRefOf } from './node-ids.ts';

/** Bounds of what consumers send. Whether text can be stored at all is checked for whole requests (`http/sound-input.ts`). */

const text = (least: number, most: number) => {
  const bounds = least === 0 ? `must have at most ${most} characters` : `must have ${least} to ${most} characters`;
  return z.string().min(least, bounds).max(most, bounds);
};

const whole = (least: number, most: number) => {
  const bounds = `must be from ${least} to ${most}`;
  return z.int(bounds).min(least, bounds).max(most, bounds);
};

export const maxTtlSeconds = 30 * 24 * 3_600;

const id = text(0, 255);
const labels = z.array(text(1, 100)).max(64, 'must have at most 64 entries');

/** What each argument and input field may hold, by its name. */
const bounds = {
  id,
  agentId: id,
  messageId: id,
  broadcastId: id,
  agentIds: z.array(id).max(1_000, 'must have at most 1000 entries'),
  orgId: text(0, 255),
  search: text(0, 255),
  labels,
  add: labels,
  remove: labels,
  note: text(0, 10_000),
  reason: text(0, 1_000),
  actions: z
    .array(z.enum(auditedActionNames, 'must be names of actions (docs/AUDIT.md)'))
    .max(64, 'must have at most 64 entries'),
  actorId: text(1, 255),
  subjectId: text(1, 255),
  outcome: text(1, 64),
  channel: text(1, 280),
  keyFingerprint: z.string().regex(/^[0-9a-f]{64}$/i, 'must be the 64 hexadecimal digits of a SHA-256'),
  expiresIn: whole(1, maxTokenLifeSeconds),
  ttl: whole(1, maxTtlSeconds),
  maxRetries: whole(0, 100),
  idempotencyKey: text(1, 255),
  ratePerSecond: whole(1, 10_000),
  abortAtFailurePercent: whole(1, 100),
} as const;

/**
 * Checks every argument that has bounds and is given. Throws BAD_USER_INPUT that names the first that is out of them.
 */
export function checkBounds(given: object): void {
  for (const [name, value] of Object.entries(given)) {
    if (value == null || !isBounded(name)) continue;
    const [issue] = bounds[name].safeParse(value).error?.issues ?? [];
    if (issue) throw new AegisError('BAD_USER_INPUT', `\`${[name, ...issue.path].join('.')}\` ${issue.message}`);
  }
}

function isBounded(name: string): name is keyof typeof bounds {
  return Object.hasOwn(bounds, name);
}

/** GraphQL tells "not given" in two ways, and so do the optional fields of inputs. */
type Nullable<Shape> = { readonly [Key in keyof Shape]?: Shape[Key] | null | undefined };

export interface AgentFilterInput
  extends Nullable<Pick<AgentFilter, 'connected' | 'enrollment' | 'protocol' | 'orgId' | 'search'>> {
  readonly labels?: readonly string[] | null | undefined;
  readonly agentIds?: readonly string[] | null | undefined;
}

/** The fleet's filter. Throws BAD_USER_INPUT. */
export function agentFilterOf(input: AgentFilterInput | null | undefined): AgentFilter {
  if (input == null) return {};
  checkBounds(input);
  return {
    connected: input.connected ?? undefined,
    enrollment: input.enrollment ?? undefined,
    protocol: input.protocol ?? undefined,
    orgId: input.orgId ?? undefined,
    labels: input.labels ?? undefined,
    agentRefs: input.agentIds?.map(agentRefOf),
    search: input.search ?? undefined,
  };
}
