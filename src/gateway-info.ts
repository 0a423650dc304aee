/** What a consumer may ask about the gateway itself. */
export interface GatewayInfo {
  readonly version: string;
  /** This instance's name. */
  readonly instance: string;
}
