import type { Scope } from '../access/scope.ts';
import type { KeysetRange, Page, PageRequest } from '../paging.ts';
import type { EventFilter, StoredEvent, StreamGap } from './event.ts';

/** What agents report, as consumers read it. */
export interface Events {
  /** Events in the order of the stream. */
  page(scope: Scope, filter: EventFilter, request: PageRequest): Promise<Page<StoredEvent>>;

  /**
   * The same page for each of many agents, in one statement: what `Agent.events` of a list of agents needs.
   * `filter.agentUid` is ignored.
   */
  pageByAgent(
    scope: Scope,
    agentUids: readonly string[],
    filter: EventFilter,
    range: KeysetRange<number>,
  ): Promise<ReadonlyMap<string, Page<StoredEvent>>>;

  /** The events at these positions, in no order; what is unknown or outside the scope is left out. */
  findAll(scope: Scope, positions: readonly number[]): Promise<readonly StoredEvent[]>;

  /** Events that answer each of these messages, oldest first. */
  repliesTo(scope: Scope, messageIds: readonly string[]): Promise<ReadonlyMap<string, readonly StoredEvent[]>>;

  /** Where an event stands, as consumers are told. */
  cursorOf(event: StoredEvent): string;

  /** Where the stream stands now: what is stored from here on comes after it. */
  cursorOfNow(): Promise<string>;

  /** The position in a cursor. Throws CURSOR_INVALID. */
  positionOf(cursor: string): number;

  /**
   * Events as they are stored, from now on or, with `after`, from that cursor on: first what is stored, then live, without
   * a gap or a repeat between the two. Where retention was there first a gap is told, in the order of its end. Throws
   * SLOW_CONSUMER where the reader falls too far behind, CURSOR_INVALID for a cursor that is none or that lies ahead of every event.
   * Ends when `signal` aborts.
   */
  subscribe(
    scope: Scope,
    filter: EventFilter,
    after: string | null,
    signal: AbortSignal,
  ): AsyncIterable<StoredEvent | StreamGap>;
}
