import { concatBytes, utf8 } from '../wire/bytes.ts';
import type { KeyRotation } from '../wire/v2-session-channel.ts';
import type { CryptoSuite, SigningKey } from './suite.ts';
import type { V2Session } from './v2-session.ts';

const domain = utf8('aegis2/rotate\0');

/** An agent's new key, signed by the old one and by itself, for this session alone. */
export function signRotation(
  session: Pick<V2Session, 'transcriptHash'>,
  oldKey: SigningKey,
  newKey: SigningKey,
): KeyRotation {
  const signed = signedBytes(session, oldKey.publicKey, newKey.publicKey);
  return { publicKey: newKey.publicKey, signatureByOld: oldKey.sign(signed), signatureByNew: newKey.sign(signed) };
}

/** Whether both keys have signed, in this session, and are two. The old key is the one that the agent proved in the handshake. */
export function verifyRotation(
  suite: CryptoSuite,
  session: Pick<V2Session, 'transcriptHash' | 'peerPublicKey'>,
  { publicKey, signatureByOld, signatureByNew }: KeyRotation,
): boolean {
  if (suite.isEqual(session.peerPublicKey, publicKey)) return false;
  const signed = signedBytes(session, session.peerPublicKey, publicKey);
  return suite.verify(session.peerPublicKey, signed, signatureByOld) && suite.verify(publicKey, signed, signatureByNew);
}

/** "aegis2/rotate\0" ‖ h4 ‖ A ‖ A' */
function signedBytes(
  { transcriptHash }: Pick<V2Session, 'transcriptHash'>,
  oldPublicKey: Uint8Array,
  newPublicKey: Uint8Array,
): Uint8Array {
  return concatBytes(domain, transcriptHash, oldPublicKey, newPublicKey);
}
