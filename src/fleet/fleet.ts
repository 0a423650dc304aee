import type { Scope } from '../access/scope.ts';
import type { Changer } from '../audit/actor.ts';
import type { Page, PageRequest } from '../paging.ts';
import type { Agent, AgentFilter, AgentProtocol, PresenceChange } from './agent.ts';

/**
 * Who the agents are, as consumers see and change it. Wherever a `ref` is asked for, a name or a uid will do; a name that
 * several organisations use is taken in the default organisation, else it is AGENT_NAME_AMBIGUOUS.
 * Agents outside the scope do not exist: every method that takes a ref throws AGENT_NOT_FOUND for them. Every change is put on
 * record in the statement that makes it.
 */
export interface Fleet {
  /** The agent, or null. */
  find(scope: Scope, ref: string): Promise<Agent | null>;

  /** The agents with these uids, each once, in no order; what is unknown or outside the scope is left out. */
  findAll(scope: Scope, uids: readonly string[]): Promise<readonly Agent[]>;

  /** Agents by name. */
  page(scope: Scope, filter: AgentFilter, request: PageRequest): Promise<Page<Agent>>;

  count(scope: Scope, filter: AgentFilter): Promise<number>;

  /** Every agent that matches, by name: REST's list, which has no pages. */
  all(scope: Scope, filter: AgentFilter): Promise<readonly Agent[]>;

  /** Place in `page`'s list, for a connection's edges. */
  cursorOf(agent: Agent): string;

  /** Long names of the active channels of each of these agents. */
  activeChannels(scope: Scope, uids: readonly string[]): Promise<ReadonlyMap<string, readonly string[]>>;

  /**
   * Trusts the agent, or its pending key, from now on; what waited for it flows, on links already open. A v2 key that is
   * trusted ends v1 for the agent. Without a fingerprint the agent is approved with the key on record, or, where that is
   * trusted, the newest key that waits. With a fingerprint, throws AGENT_KEY_NOT_PENDING unless that is the key that waits; a revoked agent throws AGENT_REVOKED.
   */
  approve(by: Changer, ref: string, keyFingerprint?: string): Promise<Agent>;

  /** Approves all that match and wait; answers how many. */
  approveAll(by: Changer, filter: AgentFilter): Promise<number>;

  /** Closes the agent's links, on every instance within a second, and refuses it from now on. */
  revoke(by: Changer, ref: string, reason: string | null): Promise<Agent>;

  /** Lets the agent come back with a new key once, on v1 too. A revoked agent is let in again by it. */
  resetKey(by: Changer, ref: string): Promise<Agent>;

  setLabels(by: Changer, ref: string, add: readonly string[], remove: readonly string[]): Promise<Agent>;

  setNote(by: Changer, ref: string, note: string): Promise<Agent>;

  /** Switches one channel on or off. `channel` is a long or short name; throws CHANNEL_UNKNOWN. */
  setChannelActive(by: Changer, ref: string, channel: string, active: boolean): Promise<Agent>;

  /** Closes the agent's link, if there is one. Agents come back by themselves. */
  disconnect(by: Changer, ref: string): Promise<Agent>;

  /** How many agents wait for approval, of themselves or of a new key. */
  countAwaitingApproval(scope: Scope): Promise<number>;

  /** How many agents are connected, over all instances. */
  countConnected(scope: Scope, protocol?: AgentProtocol): Promise<number>;

  /** Names of the instances that run now. */
  instances(): Promise<readonly string[]>;

  /** Agents that come and go, from now on. Ends when `signal` aborts. */
  presence(signal: AbortSignal): AsyncIterable<PresenceChange>;
}
