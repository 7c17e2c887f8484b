// The two encryptions and the signature behind them, byte for byte as the engine's (engine/src/crypto). Everything is
// computed here and nothing by WebCrypto: `crypto.subtle` is missing where a page is no secure context.

import { gcm } from "@noble/ciphers/aes.js";
import { secp256k1 } from "@noble/curves/secp256k1.js";
import { hkdf } from "@noble/hashes/hkdf.js";
import { sha256 } from "@noble/hashes/sha2.js";
import { keccak_256 } from "@noble/hashes/sha3.js";
import { bytesToHex, concatBytes, hexToBytes, utf8ToBytes } from "@noble/hashes/utils.js";
import { eip191Signer } from "micro-eth-signer";
import { Failure } from "./failure.ts";

const NONCE = 12;
const TAG = 16;
const SIGNATURE = 65;

export interface Access {
  readonly hostname: string;
  readonly port: number;
  readonly username: string;
}

function random(length: number): Uint8Array {
  return crypto.getRandomValues(new Uint8Array(length));
}

/**
 * ECIES over secp256k1: ephemeral public key (65) | iv (12) | ciphertext | tag (16), AES-256-GCM with the key
 * HKDF-SHA256(x coordinate, salt 32 zeros, no info).
 */
export function sealToServer(
  publicKey: string,
  text: string,
  ephemeral: Uint8Array = secp256k1.utils.randomSecretKey(),
  iv: Uint8Array = random(NONCE),
): Uint8Array {
  const x = secp256k1.getSharedSecret(ephemeral, hexToBytes(publicKey), true).subarray(1);
  const key = hkdf(sha256, x, new Uint8Array(32), undefined, 32);
  return concatBytes(secp256k1.getPublicKey(ephemeral, false), iv, gcm(key, iv).encrypt(utf8ToBytes(text)));
}

/** Access details: nonce (12) | ciphertext | tag (16), AES-256-GCM with the key keccak256(signature). */
export function openDetails(signature: string, data: Uint8Array): Access {
  if (data.length < NONCE + TAG) throw new Failure("This token carries no access details yet. Try again in a minute.");
  let plain: Uint8Array;
  try {
    const key = keccak_256(hexToBytes(signature.slice(2)));
    plain = gcm(key, data.subarray(0, NONCE)).decrypt(data.subarray(NONCE));
  } catch {
    throw new Failure(
      "These access details do not open with this wallet's signature. They were made for another account or another wallet program: use the one that bought the subscription.",
    );
  }
  return readAccess(new TextDecoder().decode(plain));
}

function readAccess(text: string): Access {
  const wrong = new Failure("The access details are damaged: ask the operator to write them again.");
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw wrong;
  }
  if (typeof value !== "object" || value === null) throw wrong;
  const { hostname, port, username } = value as Record<string, unknown>;
  if (typeof hostname !== "string" || typeof username !== "string" || typeof port !== "number") throw wrong;
  return { hostname, port, username };
}

/**
 * The command to log in with, or null when a part of it could mean something else to a shell or to ssh: then it is only
 * shown, for people to judge.
 */
export function sshCommand({ hostname, port, username }: Access): string | null {
  const good =
    /^[0-9A-Za-z][0-9A-Za-z.-]*$|^[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*$/.test(hostname) &&
    /^[A-Za-z_][A-Za-z0-9_-]*$/.test(username) &&
    Number.isInteger(port) &&
    port >= 1 &&
    port <= 65_535;
  if (!good) return null;
  return port === 22 ? `ssh ${username}@${hostname}` : `ssh -p ${port} ${username}@${hostname}`;
}

/** A signature is a key only if it is the account's own and of the usual form. */
export function checkSignature(signature: unknown, text: string, account: string): string {
  const form = typeof signature === "string" && /^0x[0-9a-fA-F]*$/.test(signature) ? signature.toLowerCase() : null;
  if (form?.length !== 2 + 2 * SIGNATURE) {
    throw new Failure(
      "This wallet's signatures are not of the usual form (65 bytes), as with accounts that are contracts. Use an ordinary account.",
    );
  }
  let signer: string;
  try {
    signer = eip191Signer.recoverAddress(withUsualRecovery(form), text);
  } catch {
    throw new Failure("The wallet gave a signature that is none.");
  }
  if (signer.toLowerCase() !== account.toLowerCase()) {
    throw new Failure("The wallet signed with another account than the one it is connected with. Choose the account in the wallet and try again.");
  }
  return form;
}

/** Some hardware wallets end with 0 or 1 where others write 27 or 28; what is checked is the same. */
function withUsualRecovery(signature: string): string {
  const last = signature.slice(-2);
  const usual = last === "00" ? "1b" : last === "01" ? "1c" : last;
  return signature.slice(0, -2) + usual;
}

/** The first digits of the hash of the server's key: what an operator can publish elsewhere for comparison. */
export function fingerprint(publicKey: string): string {
  return bytesToHex(sha256(hexToBytes(publicKey))).slice(0, 32);
}
