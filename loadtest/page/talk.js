// The conversation twice: as the customer sees it, and as the humans do, with notes and what happened in between.
//
// Messages are appended, never drawn again, so that a screen reader reads each once. All text goes in as text.

import { clock, word } from "/demo/words.js";

/** An element with a class and a text. */
export function make(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined && text !== null) made.textContent = text;
  return made;
}

/** Text with **bold** pieces, and a last line "Source: …" set apart. */
function rich(text) {
  const whole = make("div", "text");
  const cut = /\n\s*\n(Source ?:[^\n]*)\s*$/.exec(text);
  const body = cut ? text.slice(0, cut.index) : text;
  body.split("**").forEach((piece, place) => {
    if (piece) whole.append(place % 2 ? make("strong", "", piece) : document.createTextNode(piece));
  });
  if (cut) whole.append(make("cite", "source", cut[1]));
  return whole;
}

const chosenTitle = (message) => (Array.isArray(message.chosen) ? message.chosen.map((one) => one.title ?? one.value).join(", ") : "");

function bubble(message, choose) {
  if (message.kind === "activity") return make("p", "activity", message.text);
  const whole = make("article", `message ${message.kind}`);
  const head = make("header", "by");
  const kind = word(message.kind);
  head.append(make("strong", "", message.by ?? kind));
  if (message.by && message.kind !== "customer") head.append(make("span", "kind", kind));
  const time = make("time", "", clock(message.at_ms));
  time.dateTime = new Date(message.at_ms).toISOString();
  head.append(time);
  whole.append(head, rich(message.text ?? ""));
  if (message.failed) whole.append(make("p", "failed", word("failed")));
  if (message.choices && chosenTitle(message)) whole.append(make("p", "chosen", word("chosen", chosenTitle(message))));
  else if (message.choices && choose) {
    const choices = make("div", "choices");
    for (const choice of message.choices) {
      const button = make("button", "", choice.title);
      button.type = "button";
      button.addEventListener("click", () => choose(message.id, choice));
      choices.append(button);
    }
    whole.append(choices);
  }
  return whole;
}

/** One log of messages; `wanted` says which it shows, `choose` what a button in a message does. */
export class Log {
  #shown = new Map();
  #of = null;
  /** Whether the reader is at the end, and so is kept there whatever changes in size. */
  #atEnd = true;

  constructor(element, { wanted, choose }) {
    this.element = element;
    this.live = element.getAttribute("aria-live");
    this.wanted = wanted;
    this.choose = choose;
    element.addEventListener("scroll", () => {
      if (element.clientHeight) this.#atEnd = element.scrollHeight - element.scrollTop - element.clientHeight < 60;
    });
    new ResizeObserver(() => this.#keepEnd()).observe(element);
  }

  #keepEnd() {
    if (this.#atEnd) this.element.scrollTop = this.element.scrollHeight;
  }

  /** Shows this conversation; draws all of it again if it is another one, or in another language. */
  show(of, messages, emptyText) {
    const log = this.element;
    const isOther = of !== this.#of;
    if (isOther) {
      // A whole conversation is not news.
      log.setAttribute("aria-live", "off");
      log.replaceChildren();
      this.#shown.clear();
      this.#of = of;
      requestAnimationFrame(() => requestAnimationFrame(() => log.setAttribute("aria-live", this.live)));
    }
    const wanted = messages.filter(this.wanted);
    log.querySelector(".empty")?.remove();
    for (const message of wanted) {
      const as = JSON.stringify([message.text, message.failed, message.chosen]);
      const shown = this.#shown.get(message.id);
      if (shown?.as === as) continue;
      const element = bubble(message, this.choose);
      if (shown) shown.element.replaceWith(element);
      else log.append(element);
      this.#shown.set(message.id, { as, element });
    }
    if (!wanted.length) log.append(make("p", "empty", emptyText));
    this.#atEnd ||= isOther;
    this.#keepEnd();
  }
}

/** The list of conversations; keeps the focus where it is. */
export function showList(list, conversations, selected, select) {
  const focused = document.activeElement?.dataset?.conversation;
  list.replaceChildren(...conversations.map((conversation) => {
    const item = make("li");
    const button = make("button", "row");
    button.type = "button";
    button.dataset.conversation = conversation.id;
    if (conversation.id === selected) button.setAttribute("aria-current", "true");
    const first = make("span", "row-head");
    first.append(make("strong", "", conversation.customer), make("span", "number", `#${conversation.id}`));
    const badge = make("span", "badge", word(conversation.status));
    badge.dataset.status = conversation.status;
    const last = conversation.last?.text?.split("\n")[0] ?? "";
    button.append(first, make("span", "last", last), badge);
    button.addEventListener("click", () => select(conversation.id));
    item.append(button);
    return item;
  }));
  const shown = list.querySelector("[aria-current]");
  if (shown?.dataset.conversation !== list.dataset.shown) {
    list.dataset.shown = shown?.dataset.conversation ?? "";
    // Not scrollIntoView: it also moves the place from which Tab goes on.
    if (shown) list.scrollLeft = shown.offsetLeft - list.offsetLeft - 8;
  }
  if (!conversations.length) list.append(make("li", "empty", word("no_conversation")));
  if (focused) list.querySelector(`[data-conversation="${CSS.escape(focused)}"]`)?.focus();
}
