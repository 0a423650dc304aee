import { createHash, randomBytes } from 'node:crypto';
import type { Bus } from '../bus/bus.ts';
import { type Clock, repeat } from '../clock.ts';
import type { Database } from '../db/database.ts';
import { AegisError } from '../errors.ts';
import { decodeNumericCursor, encodeCursor, keysetRange, pageOf } from '../paging.ts';
import { createApiKeyQueries } from './api-key-queries.ts';
import { type ApiKey, type ApiKeys, maxKeyLifeSeconds, type NewApiKey } from './api-keys.ts';
import type { TokenReader } from './authenticate.ts';
import { type Consumer, isPermission, type Permission, permissions } from './consumer.ts';
import { createRemembered } from './remembered.ts';

/** The API keys: what administrators call, what authentication asks, what goes on by itself. */
export interface ApiKeysPart {
  readonly apiKeys: ApiKeys;
  readonly read: TokenReader;
  /** Those of the keys with these ids that may be used. */
  usable(ids: readonly string[]): Promise<readonly string[]>;
  start(): void;
  /** Writes when keys were last used. */
  stop(): Promise<void>;
}

const keyPattern = /^agk_([0-9a-f]{12})_[\w-]{43}$/;
const noteIntervalMs = 10_000;

export function createApiKeys(deps: {
  readonly database: Database;
  readonly bus: Bus;
  readonly clock: Clock;
  /** What time it is. */
  readonly wall: Pick<Clock, 'now'>;
  readonly defaultOrg: string;
  readonly logError: (error: unknown, context: string) => void;
}): ApiKeysPart {
  const { bus, clock, wall } = deps;
  const queries = createApiKeyQueries(deps.database);
  const remembered = createRemembered(clock, wall);
  /** By key, when it was used since this was last written. */
  let uses = new Map<string, Date>();
  const releases: (() => void)[] = [];

  async function noteUses(): Promise<void> {
    if (uses.size === 0) return;
    const noting = uses;
    uses = new Map();
    try {
      await queries.noteUses(noting);
    } catch (error) {
      // What was used since then counts.
      uses = new Map([...noting, ...uses]);
      throw error;
    }
  }

  async function find(hash: string): Promise<Consumer | null> {
    try {
      const key = await queries.findUsable(hash);
      return key && consumerOf(key);
    } catch (error) {
      deps.logError(error, 'an API key could not be looked up');
      throw new AegisError('UNAVAILABLE');
    }
  }

  function use(consumer: Consumer | null): Consumer | null {
    if (consumer) uses.set(consumer.id, new Date(wall.now()));
    return consumer;
  }

  function orgOf(consumer: Consumer, { orgId, allOrganisations }: NewApiKey): string | null {
    if (allOrganisations && orgId !== undefined)
      throw new AegisError('BAD_USER_INPUT', 'Give one of `orgId` and `allOrganisations`');
    const wanted = allOrganisations ? null : (orgId ?? consumer.orgId ?? deps.defaultOrg);
    if (consumer.orgId !== null && wanted !== consumer.orgId)
      throw new AegisError('FORBIDDEN', 'Keys of other organisations need the scope admin, of all organisations');
    return wanted;
  }

  const apiKeys: ApiKeys = {
    async create(consumer, input) {
      const granted = checked(input);
      const orgId = orgOf(consumer, input);
      const prefix = `agk_${randomBytes(6).toString('hex')}`;
      const secret = `${prefix}_${randomBytes(32).toString('base64url')}`;
      const key = await queries.insert(consumer, {
        ...{ hash: hashOf(secret), prefix, name: input.name, orgId, permissions: granted },
        expiresInSeconds: input.expiresInSeconds ?? null,
      });
      return { secret, key };
    },
    async page(consumer, request) {
      const range = keysetRange(request, (cursor) => decodeNumericCursor('api-key', cursor));
      return pageOf(range, await queries.page(consumer, range));
    },
    count: (consumer) => queries.count(consumer),
    cursorOf: (key) => encodeCursor('api-key', key.sequence),
    async revoke(consumer, id) {
      const key = isUuid(id) ? await queries.revoke(consumer, id) : null;
      if (!key) throw new AegisError('NOT_FOUND', 'No such API key');
      remembered.forget([key.id]);
      bus.publish('credentials', { revoked: [key.id] });
      return key;
    },
  };

  return {
    apiKeys,
    read(token) {
      if (!token.startsWith('agk_')) return undefined;
      if (!keyPattern.test(token)) return null;
      const hash = hashOf(token);
      const found = remembered.get(hash, () => find(hash));
      return found instanceof Promise ? found.then(use) : use(found);
    },
    usable: (ids) => queries.usable(ids),
    start() {
      releases.push(
        bus.subscribe('credentials', ({ revoked }) => remembered.forget(revoked)),
        bus.subscribe('missed', () => remembered.forgetAll()),
        repeat(clock, noteIntervalMs, noteUses, (error) =>
          deps.logError(error, 'when API keys were last used could not be written'),
        ),
      );
    },
    async stop() {
      for (const release of releases.splice(0)) release();
      await noteUses();
    },
  };
}

/** What the key is to permit. Throws BAD_USER_INPUT. */
function checked({ name, permissions: wanted, expiresInSeconds }: NewApiKey): Permission[] {
  if (name.length < 1 || name.length > 255)
    throw new AegisError('BAD_USER_INPUT', '`name` must have 1 to 255 characters');
  const granted = [...new Set(wanted)].filter(isPermission);
  if (granted.length === 0 || !wanted.every(isPermission))
    throw new AegisError('BAD_USER_INPUT', `\`scopes\` must be one or more of ${permissions.join(', ')}`);
  const isLife = expiresInSeconds === undefined || Number.isInteger(expiresInSeconds);
  if (!isLife || (expiresInSeconds !== undefined && (expiresInSeconds < 1 || expiresInSeconds > maxKeyLifeSeconds)))
    throw new AegisError('BAD_USER_INPUT', `\`expiresIn\` must be from 1 to ${maxKeyLifeSeconds}`);
  return granted;
}

function consumerOf({ id, name, prefix, orgId, permissions: granted, expiresAt }: ApiKey): Consumer {
  const label = `${name} (${prefix})`;
  return { id, kind: 'api-key', label, orgId, permissions: new Set(granted), expiresAt };
}

/** No salt and no stretching: 256 random bits cannot be guessed from their hash. */
function hashOf(secret: string): string {
  return createHash('sha256').update(secret).digest('hex');
}

function isUuid(text: string): boolean {
  return /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i.test(text);
}
