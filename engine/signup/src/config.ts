// What the host told the page. `blockhost-generate-signup` writes it (engine/src/signup.rs, struct `Page`) and has
// checked it; nothing here comes from visitors.

/** How large a machine is. */
export interface Machine {
  readonly cores: number;
  readonly memory_mb: number;
  readonly disk_gb: number;
}

export interface Config {
  readonly title: string;
  readonly chain_id: number;
  readonly chain_name: string;
  /** What the chain's gas is paid in, such as "ETH". */
  readonly currency: string;
  /** Endpoints that answer to browsers, in order of preference. */
  readonly rpc_urls: readonly string[];
  /** A block explorer, without a slash at the end. */
  readonly explorer_url: string | null;
  readonly contact: string | null;
  readonly terms_url: string | null;
  readonly subscription_contract: string;
  readonly nft_contract: string;
  /** Uncompressed, 130 hexadecimal digits. */
  readonly server_public_key: string;
  /** What buyers sign. The signature is the key to their access details. */
  readonly public_secret: string;
  /** Blocks on top of a payment before it counts, as for the engine. */
  readonly confirmations: number;
  /** Angle of the page's colour, in degrees. */
  readonly hue: number;
  /** What plans give, by their number. */
  readonly machines: Readonly<Record<string, Machine>>;
  /** What every other plan gives. */
  readonly machine: Machine;
}

export function readConfig(): Config {
  const element = document.getElementById("config");
  return JSON.parse(element?.textContent ?? "") as Config;
}
