/** The rules by which agents are let in; see `docs/CONFIGURATION.md`. */
export interface AdmissionPolicy {
  readonly enrollment: 'open' | 'token' | 'approval' | 'closed';
  readonly keyChange: 'quarantine' | 'replace' | 'refuse';
  readonly defaultOrg: string;
  readonly sessionTimeoutMs: number;
}
