// A wallet in the browser of the test: EIP-1193 in the page, keys and decisions out here, where a scenario can make it
// refuse, lie, or be on another chain.
import { hexToBytes } from "@noble/hashes/utils.js";
import { eip191Signer } from "micro-eth-signer";
import { Signer } from "./chain.mjs";

const refused = (code, message) => ({ error: { code, message } });

export class TestWallet extends Signer {
  chainId = 31337;
  /** Chains that it has heard of. */
  known = new Set([31337]);
  /** Methods that its owner declines from now on. */
  declines = new Set();
  /** Other signatures for the same text each time. */
  hedged = false;
  /** Called with a transaction before it is sent. */
  beforeSend = async () => {};
  /** What it was asked, and what it sent. */
  asked = [];
  sent = [];

  async request({ method, params }) {
    this.asked.push(method);
    if (this.declines.has(method)) return refused(4001, "User rejected the request.");
    switch (method) {
      case "eth_requestAccounts":
      case "eth_accounts":
        return { result: [this.address] };
      case "eth_chainId":
        return { result: `0x${this.chainId.toString(16)}` };
      case "personal_sign":
        return { result: eip191Signer.sign(hexToBytes(params[0].slice(2)), this.key, this.hedged) };
      case "wallet_switchEthereumChain":
        if (!this.known.has(Number(params[0].chainId))) return refused(4902, "Unrecognized chain ID.");
        this.chainId = Number(params[0].chainId);
        return { result: null };
      case "wallet_addEthereumChain":
        this.added = params[0];
        this.known.add(Number(params[0].chainId));
        this.chainId = Number(params[0].chainId);
        return { result: null };
      case "eth_sendTransaction":
        return this.#send(params[0]);
      default:
        try {
          return { result: await this.node.ask(method, ...(params ?? [])) };
        } catch (error) {
          return { error: { code: error.code, message: error.message, data: error.data } };
        }
    }
  }

  async #send({ from, to, data }) {
    if (from.toLowerCase() !== this.address.toLowerCase() || this.chainId !== 31337) throw new Error("sent from elsewhere");
    await this.beforeSend({ to, data });
    const nonce = await this.node.nonce(this.address);
    const raw = await this.signed({ to, data, nonce });
    this.sent.push({ to, data, nonce, raw });
    return { result: await this.node.ask("eth_sendRawTransaction", raw) };
  }

  /** Puts it into a page before the page's own script runs: as `window.ethereum`, or announced under a name. */
  async install(page, announced = null) {
    const binding = `wallet_${announced?.replace(/\W/g, "") ?? "injected"}`;
    await page.exposeFunction(binding, (request) => this.request(request));
    await page.addInitScript(
      ({ binding, announced }) => {
        const listeners = new Map();
        const provider = {
          async request(request) {
            const { result, error } = await window[binding](request);
            if (error) throw error;
            return result;
          },
          on: (event, listener) => listeners.set(event, [...(listeners.get(event) ?? []), listener]),
        };
        window[`${binding}_emit`] = (event, value) => listeners.get(event)?.forEach((listener) => listener(value));
        if (announced === null) {
          window.ethereum = provider;
          return;
        }
        const icon = "data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 1 1'><rect width='1' height='1'/></svg>";
        const detail = Object.freeze({ info: { uuid: binding, name: announced, icon, rdns: "example" }, provider });
        const announce = () => window.dispatchEvent(new CustomEvent("eip6963:announceProvider", { detail }));
        window.addEventListener("eip6963:requestProvider", announce);
        announce();
      },
      { binding, announced },
    );
    return (event, value) => page.evaluate(([name, event, value]) => window[name](event, value), [`${binding}_emit`, event, value]);
  }
}
