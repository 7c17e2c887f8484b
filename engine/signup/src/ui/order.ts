// The list of plans and the order beside it: which plan, how many days, paid with what, for how much.

import { explain } from "../failure.ts";
import { ceiling, type Order } from "../purchase.ts";
import type { Method, Plan, Shop } from "../shop.ts";
import { amount, dollars, roughly, size } from "../text.ts";
import { foreign, make, piece } from "./dom.ts";

/** Ten years. The contract knows no limit; a slip of the finger should. */
const MOST_DAYS = 3650;

export class OrderForm {
  readonly #shop: Shop;
  #methods: readonly Method[] = [];
  #order: Order | null = null;
  /** Answers to older questions are dropped. */
  #question = 0;

  constructor(shop: Shop, submitted: (order: Order) => Promise<void>) {
    this.#shop = shop;
    const form = piece<"form">("order");
    form.addEventListener("input", () => void this.update());
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      if (this.#order === null || piece<"button">("buy").disabled) return;
      const order = this.#order;
      piece<"button">("buy").disabled = true;
      try {
        await submitted(order);
      } finally {
        await this.update();
      }
    });
    for (const preset of form.querySelectorAll<HTMLButtonElement>("[data-days]")) {
      preset.setAttribute("aria-label", `${preset.dataset["days"]} days`);
      preset.addEventListener("click", () => {
        piece<"input">("days").value = preset.dataset["days"] ?? "";
        void this.update();
      });
    }
  }

  /** What can be paid with, for extensions too. */
  get methods(): readonly Method[] {
    return this.#methods;
  }

  show(plans: readonly Plan[], methods: readonly Method[]): void {
    this.#methods = methods;
    const sold = plans.filter((plan) => plan.active);
    const list = piece("plan-list");
    if (sold.length === 0) list.replaceChildren(make("p", { class: "muted" }, "Nothing is for sale at the moment."));
    else list.replaceChildren(...sold.map((plan, n) => planCard(plan, n === 0)));
    piece("method").replaceChildren(
      ...methods.map((method) => make("option", { value: String(method.id) }, method.symbol)),
    );
    void this.update();
  }

  /** Asks for the price of what is chosen. */
  async update(): Promise<void> {
    const question = ++this.#question;
    this.#order = null;
    const buy = piece<"button">("buy");
    buy.disabled = true;
    const days = this.#days();
    const plan = piece("plan-list").querySelector<HTMLInputElement>("input:checked");
    const method = this.#methods.find((one) => String(one.id) === piece<"select">("method").value);
    if (plan === null || method === undefined || days === null) {
      this.#say("–", plan !== null && method === undefined ? "The operator has not set up payments yet." : "");
      return;
    }
    try {
      const price = await this.#shop.price(BigInt(plan.value), days, method);
      if (question !== this.#question) return;
      this.#order = { planId: BigInt(plan.value), days, method, seen: price };
      const note = method.floating
        ? `The price follows the market. You approve at most ${roughly(ceiling(price, method), method.decimals)} ${method.symbol}.`
        : "";
      const said = method.floating ? `≈ ${roughly(price, method.decimals)}` : amount(price, method.decimals);
      this.#say(`${said} ${method.symbol}`, note);
      buy.disabled = false;
    } catch (error) {
      if (question === this.#question) this.#say("–", explain(error));
    }
  }

  #days(): bigint | null {
    const input = piece<"input">("days");
    const days = Number(input.value);
    const good = /^\d{1,4}$/.test(input.value) && days >= 1 && days <= MOST_DAYS;
    input.setAttribute("aria-invalid", String(!good));
    piece("days-error").textContent = good ? "" : `Enter a whole number of days from 1 to ${MOST_DAYS}.`;
    return good ? BigInt(days) : null;
  }

  #say(total: string, note: string): void {
    piece("total").textContent = total;
    piece("total-note").textContent = note;
  }
}

function planCard(plan: Plan, chosen: boolean): HTMLElement {
  const radio = make("input", { type: "radio", name: "plan", value: String(plan.id) });
  radio.checked = chosen;
  const price = make("span", { class: "price" }, dollars(plan.cents), " ", make("small", {}, "a day"));
  const gives = make("span", { class: "gives" }, size(plan.machine));
  return make("label", { class: "card" }, radio, make("b", {}, foreign(plan.name)), price, gives);
}
