// Numbers, amounts, dates and foreign text as people read them.

import type { Machine } from "./config.ts";

const CONTROL = /[\p{Cc}\p{Cf}\p{Co}\p{Cn}\p{Zl}\p{Zp}]/gu;

/** Text of the chain on one line: without characters that hide or turn other text around, and not longer than `most`. */
export function tidy(text: string, most: number): string {
  const plain = [...text.replace(CONTROL, " ").replace(/\s+/gu, " ").trim()];
  return plain.length > most ? `${plain.slice(0, most - 1).join("")}…` : plain.join("");
}

/** US cents as dollars. */
export function dollars(cents: bigint): string {
  return `$${grouped(cents / 100n)}.${String(cents % 100n).padStart(2, "0")}`;
}

/** Base units of a token in whole ones: all digits that count, never rounded down to less than is taken. */
export function amount(units: bigint, decimals: number): string {
  const digits = units.toString().padStart(decimals + 1, "0");
  const whole = grouped(BigInt(digits.slice(0, digits.length - decimals)));
  const fraction = digits.slice(digits.length - decimals).replace(/0+$/, "");
  if (fraction === "") return whole;
  return `${whole}.${fraction.padEnd(Math.min(2, decimals), "0")}`;
}

/** The same for a glance: six digits after the point at most, rounded up. */
export function roughly(units: bigint, decimals: number): string {
  if (decimals <= 6) return amount(units, decimals);
  const step = 10n ** BigInt(decimals - 6);
  return amount((units + step - 1n) / step, 6);
}

function grouped(whole: bigint): string {
  return whole.toString().replace(/\B(?=(\d{3})+(?!\d))/g, ",");
}

/** An address for a glance. */
export function short(address: string): string {
  return `${address.slice(0, 6)}…${address.slice(-4)}`;
}

/** "1 day", "2 days". */
export function count(number: number | bigint, noun: string): string {
  return `${number} ${noun}${Number(number) === 1 ? "" : "s"}`;
}

/** "2 CPUs, 4 GB memory, 40 GB disk". */
export function size({ cores, memory_mb, disk_gb }: Machine): string {
  const memory = memory_mb % 1024 === 0 ? `${memory_mb / 1024} GB` : `${memory_mb} MB`;
  return `${count(cores, "CPU")}, ${memory} memory, ${disk_gb} GB disk`;
}

const MOMENT = new Intl.DateTimeFormat("en", { dateStyle: "medium", timeStyle: "short" });
/** The last second that a browser's calendar knows. */
const LAST_SECOND = 8_640_000_000_000n;

/** A Unix time in the visitor's own time zone. */
export function moment(seconds: bigint): string {
  return seconds > LAST_SECOND ? "the far future" : MOMENT.format(new Date(Number(seconds) * 1000));
}

/** How long until then. */
export function remaining(seconds: bigint, now: number): string {
  const left = Number(seconds) - now;
  if (left <= 0) return "over";
  if (left < 3600) return `${count(Math.ceil(left / 60), "minute")} left`;
  if (left < 2 * 86_400) return `${count(Math.floor(left / 3600), "hour")} left`;
  return `${count(Math.floor(left / 86_400), "day")} left`;
}
