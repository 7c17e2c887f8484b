// The visitor's wallet: finding it (EIP-6963, else the injected one), connecting, the right chain, signing, sending.

import { bytesToHex, utf8ToBytes } from "@noble/hashes/utils.js";
import type { Config } from "./config.ts";
import { asDeclined, Failure } from "./failure.ts";
import { checkSignature } from "./secrets.ts";
import { tidy } from "./text.ts";

/** EIP-1193. */
export interface Provider {
  request(args: { method: string; params?: readonly unknown[] }): Promise<unknown>;
  on?(event: string, listener: (value: unknown) => void): void;
}

/** A wallet that could be used. */
export interface Offer {
  readonly id: string;
  readonly name: string;
  readonly icon: string | null;
  readonly provider: Provider;
}

const offers = new Map<string, Offer>();

/** Begins to listen for wallets that announce themselves. */
export function discover(): void {
  window.addEventListener("eip6963:announceProvider", (event) => {
    const { info, provider } = (event as CustomEvent).detail ?? {};
    if (typeof info?.uuid !== "string" || typeof provider?.request !== "function") return;
    const icon = typeof info.icon === "string" && /^data:image\//.test(info.icon) ? info.icon : null;
    offers.set(info.uuid, { id: info.uuid, name: tidy(String(info.name), 40) || "Wallet", icon, provider });
  });
  window.dispatchEvent(new Event("eip6963:requestProvider"));
}

/** All wallets there are. */
export function wallets(): Offer[] {
  if (offers.size > 0) return [...offers.values()];
  const { ethereum } = window as { ethereum?: Provider };
  return ethereum ? [{ id: "injected", name: "Browser wallet", icon: null, provider: ethereum }] : [];
}

export class Wallet {
  readonly account: string;
  readonly #provider: Provider;
  /** The signature of the public secret, for as long as the page is open: nobody wants to sign for each machine. */
  #access: string | null = null;

  private constructor(provider: Provider, account: string) {
    this.#provider = provider;
    this.account = account;
  }

  /** Asks the visitor for an account. `changed` is called when the wallet has another one, or none, or another chain. */
  static async connect(offer: Offer, changed: (what: "account" | "chain") => void): Promise<Wallet> {
    const accounts = await offer.provider.request({ method: "eth_requestAccounts" }).catch((error) => {
      throw asDeclined(error);
    });
    const account = Array.isArray(accounts) ? accounts[0] : null;
    if (typeof account !== "string" || !/^0x[0-9a-fA-F]{40}$/.test(account)) throw new Failure("The wallet has no account.");
    const wallet = new Wallet(offer.provider, account);
    offer.provider.on?.("accountsChanged", (now) => {
      const first = Array.isArray(now) ? now[0] : null;
      if (typeof first !== "string" || first.toLowerCase() !== account.toLowerCase()) changed("account");
    });
    offer.provider.on?.("chainChanged", () => changed("chain"));
    offer.provider.on?.("disconnect", () => changed("account"));
    return wallet;
  }

  async request(method: string, params: readonly unknown[] = []): Promise<unknown> {
    try {
      return await this.#provider.request({ method, params });
    } catch (error) {
      throw asDeclined(error);
    }
  }

  async chainId(): Promise<number> {
    return Number(await this.request("eth_chainId"));
  }

  /** Makes the wallet use the page's chain; asks it to learn the chain where it does not know it. */
  async useChain(config: Config): Promise<void> {
    if ((await this.chainId()) === config.chain_id) return;
    const chainId = `0x${config.chain_id.toString(16)}`;
    try {
      await this.request("wallet_switchEthereumChain", [{ chainId }]);
    } catch (error) {
      if ((error as { code?: unknown }).code !== 4902) throw error;
      await this.request("wallet_addEthereumChain", [
        {
          chainId,
          chainName: config.chain_name,
          rpcUrls: config.rpc_urls,
          nativeCurrency: { name: config.currency, symbol: config.currency, decimals: 18 },
          ...(config.explorer_url === null ? {} : { blockExplorerUrls: [config.explorer_url] }),
        },
      ]);
    }
    if ((await this.chainId()) !== config.chain_id) {
      throw new Failure(`Your wallet is on another chain. Switch it to ${config.chain_name} and try again.`);
    }
  }

  /** The signature that opens this account's access details. */
  async accessSignature(secret: string): Promise<string> {
    return (this.#access ??= await this.#sign(secret));
  }

  /**
   * The same before anything is paid: twice, because a wallet that signs differently each time could never open what it
   * bought.
   */
  async repeatableSignature(secret: string): Promise<string> {
    if (this.#access !== null) return this.#access;
    const first = await this.#sign(secret);
    if (first !== (await this.#sign(secret))) {
      throw new Failure(
        "This wallet signs differently each time, so you could never open your access details. Nothing was paid. Use another wallet; most browser and hardware wallets are fine.",
      );
    }
    return (this.#access = first);
  }

  async #sign(text: string): Promise<string> {
    const signature = await this.request("personal_sign", [`0x${bytesToHex(utf8ToBytes(text))}`, this.account]);
    return checkSignature(signature, text, this.account);
  }

  /** Has the wallet sign and send; the transaction's hash. */
  async send(to: string, data: string): Promise<string> {
    const hash = await this.request("eth_sendTransaction", [{ from: this.account, to, data, value: "0x0" }]);
    if (typeof hash !== "string" || !/^0x[0-9a-fA-F]{64}$/.test(hash)) throw new Failure("The wallet did not say which transaction it sent.");
    return hash;
  }
}
