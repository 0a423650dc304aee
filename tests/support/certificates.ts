import { generateKeyPairSync, type KeyObject, randomBytes, sign } from 'node:crypto';

/** A certificate of a test's own, and its key, as PEM. */
export interface TestCertificate {
  readonly certPem: string;
  readonly keyPem: string;
  readonly name: string;
  readonly key: KeyObject;
}

/** Makes a certificate (RFC 5280) for localhost and 127.0.0.1; its own issuer where none is given. */
export function makeCertificate(
  name: string,
  options: { readonly issuer?: TestCertificate; readonly expiresAt?: Date } = {},
): TestCertificate {
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'prime256v1' });
  const issuer = options.issuer ?? { name, key: privateKey };
  const expiresAt = options.expiresAt ?? new Date(Date.now() + 365 * 86_400_000);
  const notBefore = new Date(Math.min(Date.now(), expiresAt.getTime()) - 86_400_000);
  const basicConstraints = sequence(oid('551d13'), octets(sequence(tlv(0x01, Buffer.from([0xff])))));
  const alternativeNames = sequence(
    oid('551d11'),
    octets(sequence(tlv(0x82, Buffer.from('localhost')), tlv(0x87, Buffer.from([127, 0, 0, 1])))),
  );
  const toBeSigned = sequence(
    tlv(0xa0, tlv(0x02, Buffer.from([2]))),
    tlv(0x02, Buffer.concat([Buffer.from([1]), randomBytes(8)])),
    ecdsaWithSha256,
    nameOf(issuer.name),
    sequence(time(notBefore), time(expiresAt)),
    nameOf(name),
    publicKey.export({ type: 'spki', format: 'der' }),
    tlv(
      0xa3,
      sequence(options.issuer ? alternativeNames : basicConstraints, ...(options.issuer ? [] : [alternativeNames])),
    ),
  );
  const signature = sign('sha256', toBeSigned, issuer.key);
  const der = sequence(toBeSigned, ecdsaWithSha256, tlv(0x03, Buffer.concat([Buffer.from([0]), signature])));
  const base64 = der.toString('base64').replaceAll(/.{64}(?=.)/g, '$&\n');
  return {
    name,
    key: privateKey,
    certPem: `-----BEGIN CERTIFICATE-----\n${base64}\n-----END CERTIFICATE-----\n`,
    keyPem: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
  };
}

function tlv(tag: number, content: Buffer): Buffer {
  const { length } = content;
  const lengthBytes = length < 128 ? [length] : length < 256 ? [0x81, length] : [0x82, length >> 8, length & 0xff];
  return Buffer.concat([Buffer.from([tag, ...lengthBytes]), content]);
}

function sequence(...parts: Buffer[]): Buffer {
  return tlv(0x30, Buffer.concat(parts));
}

function octets(content: Buffer): Buffer {
  return tlv(0x04, content);
}

function oid(hex: string): Buffer {
  return tlv(0x06, Buffer.from(hex, 'hex'));
}

function nameOf(commonName: string): Buffer {
  return sequence(tlv(0x31, sequence(oid('550403'), tlv(0x0c, Buffer.from(commonName)))));
}

/** GeneralizedTime, in whole seconds. */
function time(at: Date): Buffer {
  return tlv(0x18, Buffer.from(`${at.toISOString().replaceAll(/[-:T]|\.\d+Z/g, '')}Z`));
}

const ecdsaWithSha256 = sequence(oid('2a8648ce3d040302'));
