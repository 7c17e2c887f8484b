// The list of steps and the sentence below it: what is done, what is waited for, what went wrong.

import type { Config } from "../config.ts";
import { Declined, explain } from "../failure.ts";
import type { Reporter, Step } from "../purchase.ts";
import { count, short } from "../text.ts";
import type { Progress } from "../transaction.ts";
import { link, make, piece } from "./dom.ts";

const LABELS: Record<Step, string> = {
  chain: "Right chain",
  sign: "Access key",
  approve: "Approval",
  pay: "Payment",
};

export class Steps implements Reporter {
  readonly #config: Config;
  readonly #items = new Map<Step, HTMLElement>();
  #now: Step | null = null;

  constructor(config: Config, title: string, steps: readonly Step[]) {
    this.#config = config;
    piece("doing").hidden = false;
    const heading = piece("doing-title");
    heading.textContent = title;
    for (const step of steps) this.#items.set(step, make("li", {}, LABELS[step]));
    piece("steps").replaceChildren(...this.#items.values());
    piece("trace").replaceChildren();
    this.#say("");
    heading.focus();
  }

  begin(step: Step, note: string): void {
    this.#now = step;
    this.#mark(step, "now");
    this.#say(note);
  }

  progress(hash: string, progress: Progress): void {
    const { explorer_url } = this.#config;
    const trace = explorer_url === null ? short(hash) : link(`${explorer_url}/tx/${hash}`, short(hash));
    piece("trace").replaceChildren("Transaction ", trace);
    this.#say(inWords(progress));
  }

  done(step: Step): void {
    this.#mark(step, "done");
  }

  /** The end, well. */
  succeed(text: string): void {
    this.#say(text, "good");
  }

  /** The end, badly; nothing is hidden of why. */
  fail(error: unknown): void {
    if (this.#now !== null) this.#mark(this.#now, "failed");
    this.#say(explain(error), error instanceof Declined ? "" : "bad");
  }

  #mark(step: Step, state: "now" | "done" | "failed"): void {
    const item = this.#items.get(step);
    if (item === undefined) return;
    item.className = state;
    if (state === "now") item.setAttribute("aria-current", "step");
    else item.removeAttribute("aria-current");
    const said = { now: "", done: " (done)", failed: " (failed)" }[state];
    item.replaceChildren(make("span", {}, LABELS[step], make("span", { class: "hidden" }, said)));
  }

  #say(text: string, tone = ""): void {
    const status = piece("status");
    status.className = tone;
    if (status.textContent !== text) status.textContent = text;
  }
}

function inWords(progress: Progress): string {
  switch (progress.state) {
    case "sent":
      return "Sent. Waiting until it is mined.";
    case "mined":
      return `Mined. ${progress.confirmations} of ${count(progress.needed, "confirmation")}.`;
    case "thrown-back":
      return "The chain was reorganised and the transaction is not in it at the moment. Waiting until it is mined again.";
  }
}
