// The wallet's corner: choosing one, what is connected, whether it is on the right chain.

import type { Config } from "../config.ts";
import { short } from "../text.ts";
import { type Offer, type Wallet, wallets } from "../wallet.ts";
import { foreign, make, piece } from "./dom.ts";

/** Which wallet: the only one there is, or the one that is chosen. Null when the visitor thinks better of it. */
export async function chooseWallet(): Promise<Offer | null> {
  const offers = wallets();
  if (offers.length === 1) return offers[0] ?? null;
  const dialog = piece<"dialog">("wallets");
  const list = piece("wallet-list");
  let chosen: Offer | null = null;
  if (offers.length === 0) {
    list.replaceChildren(
      make("li", {}, "No wallet was found in this browser. Install one (a browser extension), reload this page, and connect it."),
    );
  } else {
    list.replaceChildren(
      ...offers.map((offer) => {
        const pick = make("button", { type: "button", class: "quiet" }, foreign(offer.name));
        if (offer.icon !== null) pick.prepend(make("img", { src: offer.icon, alt: "" }));
        pick.addEventListener("click", () => {
          chosen = offer;
          dialog.close();
        });
        return make("li", {}, pick);
      }),
    );
  }
  dialog.showModal();
  await new Promise((resolve) => dialog.addEventListener("close", resolve, { once: true }));
  return chosen;
}

export async function showWallet(config: Config, wallet: Wallet | null): Promise<void> {
  piece("connect").textContent = wallet === null ? "Connect wallet" : "Disconnect";
  piece("refresh").hidden = wallet === null;
  const account = piece("account");
  account.hidden = wallet === null;
  account.textContent = wallet === null ? "" : short(wallet.account);
  account.title = wallet?.account ?? "";
  const chain = piece("chain");
  const wrong = wallet !== null && (await wallet.chainId().catch(() => null)) !== config.chain_id;
  chain.textContent = wrong ? `Wallet is not on ${config.chain_name}` : config.chain_name;
  chain.classList.toggle("bad", wrong);
}
