// "My machines": tokens with the access details inside, and subscriptions that can be extended. The chain does not say
// which token belongs to which subscription, so neither does the page.

import type { Config } from "../config.ts";
import { explain } from "../failure.ts";
import type { Order } from "../purchase.ts";
import { type Access, openDetails, sshCommand } from "../secrets.ts";
import type { Method, Plan, Shop, Subscription } from "../shop.ts";
import { amount, moment, remaining, roughly, tidy } from "../text.ts";
import type { Wallet } from "../wallet.ts";
import { button, foreign, make, piece, rows } from "./dom.ts";

export interface Surroundings {
  readonly config: Config;
  readonly shop: Shop;
  readonly plans: readonly Plan[];
  readonly methods: readonly Method[];
  extend(subscription: bigint, order: Order): Promise<void>;
}

/** What an account has. */
export interface Holdings {
  readonly tokens: readonly bigint[];
  readonly subscriptions: readonly Subscription[];
  readonly now: number;
}

export async function holdings(shop: Shop, account: string): Promise<Holdings> {
  const [tokens, subscriptions, now] = await Promise.all([
    shop.tokens(account),
    shop.subscriptions(account),
    shop.chain.time(),
  ]);
  return { tokens, subscriptions, now };
}

/** Something was paid for and is not there yet. */
export function waitsForToken({ tokens, subscriptions }: Holdings): boolean {
  return tokens.length < subscriptions.filter((one) => one.active).length;
}

export function showHoldings(around: Surroundings, wallet: Wallet, found: Holdings): void {
  const { tokens, subscriptions, now } = found;
  piece("tokens-title").hidden = tokens.length === 0;
  piece("subscriptions-title").hidden = subscriptions.length === 0;
  keep(piece("tokens"), tokens, (id) => tokenItem(around, wallet, id));
  keep(piece("subscriptions"), subscriptions.map(({ id }) => id), subscriptionItem);
  for (const one of subscriptions) update(around, one, now);
  piece("mine-status").textContent = summary(found);
}

export function showNothing(text: string): void {
  for (const id of ["tokens", "subscriptions"]) {
    piece(`${id}-title`).hidden = true;
    piece(id).replaceChildren();
  }
  piece("mine-status").textContent = text;
}

function summary(found: Holdings): string {
  if (waitsForToken(found)) return "A machine is being prepared: its access details appear here in a few minutes.";
  return found.tokens.length + found.subscriptions.length === 0 ? "Nothing yet. What you buy appears here." : "";
}

/**
 * Brings a list to these items and touches none that stays: details that were opened stay open, and who is typing into
 * one goes on typing.
 */
function keep(list: HTMLElement, ids: readonly bigint[], build: (id: bigint) => HTMLElement): void {
  const there = new Map([...list.children].map((child) => [(child as HTMLElement).dataset["id"], child]));
  const wanted = ids.map((id) => there.get(String(id)) ?? build(id));
  for (const child of there.values()) if (!wanted.includes(child)) child.remove();
  wanted.forEach((child, n) => {
    const here = list.children[n] ?? null;
    if (here !== child) list.insertBefore(child, here);
  });
}

function tokenItem({ config, shop }: Surroundings, wallet: Wallet, id: bigint): HTMLElement {
  const result = make("div", { role: "status", "aria-live": "polite" });
  const open = button("Show access details", "quiet", async () => {
    result.replaceChildren(make("p", { class: "muted small" }, "Your wallet may ask you to sign the access message. That costs nothing."));
    try {
      const sealed = await shop.sealedAccess(id);
      const access = openDetails(await wallet.accessSignature(config.public_secret), sealed);
      result.replaceChildren(...accessDetails(access));
    } catch (error) {
      result.replaceChildren(make("p", { class: "error" }, explain(error)));
    }
  });
  open.setAttribute("aria-label", `Show access details of token ${id}`);
  return make("li", { "data-id": String(id) }, make("div", { class: "row spread" }, make("b", {}, `Access token ${id}`), open), result);
}

function accessDetails(access: Access): Node[] {
  const details = rows(make("dl", { class: "details" }), [
    ["Host", foreign(tidy(access.hostname, 255))],
    ["Port", String(access.port)],
    ["User", foreign(tidy(access.username, 64))],
  ]);
  const command = sshCommand(access);
  if (command === null) {
    return [details, make("p", { class: "error" }, "These details have an unusual form: ask the operator before you use them in a command.")];
  }
  const said = make("span", { role: "status", class: "hidden" });
  const copy = button("Copy", "quiet", async () => {
    said.textContent = (await copied(command)) ? "Copied" : "Select the command and copy it yourself";
    copy.textContent = said.textContent === "Copied" ? "Copied" : "Copy it yourself";
  });
  copy.setAttribute("aria-label", "Copy the ssh command");
  return [details, make("div", { class: "command" }, make("code", { tabindex: "0" }, command), copy, said)];
}

async function copied(text: string): Promise<boolean> {
  // Absent where the page is no secure context.
  const clipboard = navigator.clipboard as Clipboard | undefined;
  return clipboard?.writeText(text).then(() => true, () => false) ?? false;
}

function subscriptionItem(id: bigint): HTMLElement {
  return make("li", { "data-id": String(id) }, make("div", { class: "row spread" }), make("dl", { class: "details" }), make("div"));
}

/** Says what a subscription is now. The fields for its extension are left as they are while it can be extended. */
function update(around: Surroundings, subscription: Subscription, now: number): void {
  const { id, planId, expiresAt, active, cancelled } = subscription;
  const item = piece("subscriptions").querySelector(`[data-id="${id}"]`)!;
  const [head, facts, fields] = [...item.children] as HTMLElement[];
  const plan = around.plans.find((one) => one.id === planId);
  const state = cancelled ? "Cancelled" : active ? "Active" : "Expired";
  head!.replaceChildren(make("b", {}, `Subscription ${id}`), make("span", { class: `chip ${active ? "good" : "bad"}` }, state));
  rows(facts!, [
    ["Plan", foreign(plan?.name ?? `Plan ${planId}`)],
    [active ? "Until" : "Ended", `${moment(expiresAt)}${active ? ` (${remaining(expiresAt, now)})` : ""}`],
  ]);
  if (cancelled || !plan?.active || around.methods.length === 0) fields!.replaceChildren();
  else if (fields!.childElementCount === 0) fields!.append(extension(around, subscription));
}

function extension(around: Surroundings, { id, planId }: Subscription): HTMLElement {
  const days = make("input", { type: "number", min: "1", max: "3650", value: "30", "aria-label": `Days to extend subscription ${id} by` });
  const method = make(
    "select",
    { "aria-label": `Pay for subscription ${id} with` },
    ...around.methods.map((one) => make("option", { value: String(one.id) }, one.symbol)),
  );
  const note = make("p", { class: "small muted", role: "status" });
  let asked = 0;
  const quote = async (): Promise<Order | null> => {
    // Answers may come in another order than the questions: only the newest is shown.
    const question = ++asked;
    const say = (text: string): void => {
      if (question === asked) note.textContent = text;
    };
    const chosen = around.methods.find((one) => String(one.id) === method.value);
    if (chosen === undefined || !/^[1-9]\d{0,3}$/.test(days.value) || Number(days.value) > 3650) {
      say("Enter a whole number of days from 1 to 3650.");
      return null;
    }
    const order = { planId, days: BigInt(days.value), method: chosen };
    try {
      const seen = await around.shop.price(planId, order.days, chosen);
      const price = chosen.floating ? `≈ ${roughly(seen, chosen.decimals)}` : amount(seen, chosen.decimals);
      say(`${price} ${chosen.symbol}`);
      return { ...order, seen };
    } catch (error) {
      say(explain(error));
      return null;
    }
  };
  for (const input of [days, method]) input.addEventListener("input", () => void quote());
  const extend = button("Extend", "quiet", async () => {
    const order = await quote();
    if (order !== null) await around.extend(id, order);
  });
  extend.setAttribute("aria-label", `Extend subscription ${id}`);
  const fields = make("div", { class: "row" }, days, method, extend);
  method.style.width = "auto";
  void quote();
  return make("div", {}, fields, note);
}
