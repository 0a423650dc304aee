/** What a consumer may see: one organisation's objects, or those of every organisation. */
export interface Scope {
  /** Null: every organisation. */
  readonly orgId: string | null;
}

/** Every organisation: how the gateway itself looks at things. */
export const everyOrganisation: Scope = { orgId: null };
