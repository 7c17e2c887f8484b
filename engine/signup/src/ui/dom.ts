// Making elements. Text goes in as text, whoever wrote it; the page's policy forbids anything else anyhow.

type Child = Node | string;

/** An element with attributes and children. */
export function make<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Readonly<Record<string, string>> = {},
  ...children: readonly Child[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** A piece of the page, by its id. */
export function piece<K extends keyof HTMLElementTagNameMap = "div">(id: string): HTMLElementTagNameMap[K] {
  const element = document.getElementById(id);
  if (element === null) throw new Error(`the page has no #${id}`);
  return element as HTMLElementTagNameMap[K];
}

/** Text that others wrote: kept apart from the direction of the text around it. */
export function foreign(text: string): HTMLElement {
  return make("bdi", {}, text);
}

/** A button that cannot be pressed again until it has done its work. */
export function button(label: string, kind: string, work: () => Promise<void>): HTMLButtonElement {
  const element = make("button", { type: "button", class: kind }, label);
  element.addEventListener("click", async () => {
    element.disabled = true;
    try {
      await work();
    } finally {
      element.disabled = false;
    }
  });
  return element;
}

/** Rows of a name and a value. */
export function rows(list: HTMLElement, pairs: readonly (readonly [string, Child])[]): HTMLElement {
  list.replaceChildren(...pairs.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
  return list;
}

/** A link that tells the other side nothing and gets no hold of this page. */
export function link(to: string, label: string): HTMLAnchorElement {
  return make("a", { href: to, target: "_blank", rel: "noopener noreferrer" }, label);
}
