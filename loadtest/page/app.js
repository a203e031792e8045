// The page: keeps what the fake Chatwoot shows up to date, and does what its two people want.
//
// It is told of every happening (server-sent events) and asks again for what that happening is about: there is one
// truth, and it is not here. A connection that breaks is taken up where it broke (Last-Event-ID); if what was
// missed is forgotten by then, everything is read again.

import { apply, choose, language, word } from "/demo/words.js";
import { Log, make, showList } from "/demo/talk.js";
import { showMeters, showSteps, showWire } from "/demo/work.js";

const at = (id) => document.getElementById(id);
/** Happenings come in groups: one question for all of them. */
const GATHER_MS = 40;
const AGAIN_MS = 2000;
/** Customers that the page invents, in turn. */
const NAMES = ["Ana Alves", "Bruno Blanc", "Chloé Caron", "David Diallo", "Emma Evans", "Félix Faure"];

const known = { shop: "", conversations: new Map(), whole: null, selected: null, report: null, connected: false };
let chosenByHand = false;

const customerLog = new Log(at("chat-log"), {
  wanted: (message) => !["note", "activity"].includes(message.kind),
  choose: (message_id, choice) => press(() => act({ act: "customer_answers", message_id, submitted_values: [choice] })),
});
const deskLog = new Log(at("desk-log"), { wanted: () => true });

async function ask(path, options) {
  const answer = await fetch(path, { cache: "no-store", ...options });
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  const text = await answer.text();
  return text ? JSON.parse(text) : null;
}

const tell = (path, body) =>
  ask(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });

let toastEnds;
function complain() {
  at("toast").textContent = word("trouble");
  at("toast").hidden = false;
  clearTimeout(toastEnds);
  toastEnds = setTimeout(() => { at("toast").hidden = true; }, 6000);
}

/** Does it; what fails is said, and thrown for whoever would go on. */
async function tried(work) {
  try {
    return await work();
  } catch (error) {
    complain();
    throw error;
  }
}

const act = (what) => tell(`/control/conversations/${known.selected}/acts`, what);
/** For buttons: there is nothing to put back when it fails. */
const press = (work) => tried(work).catch(() => {});

// What is shown.

function draw() {
  const conversations = [...known.conversations.values()].sort((a, b) => b.active_at_ms - a.active_at_ms || b.id - a.id);
  const whole = known.whole?.id === known.selected ? known.whole : null;
  at("chat-title").textContent = known.shop;
  at("shop-initials").textContent = known.shop.split(" ").map((part) => part[0]).join("").slice(0, 2);
  at("chat-sub").textContent = whole ? word("you_are", whole.customer) : word("nobody");
  const of = `${whole?.id} ${language}`;
  customerLog.show(of, whole?.messages ?? [], word("empty_chat"));
  deskLog.show(of, whole?.messages ?? [], word("no_conversation"));
  // As Chatwoot's own chat window: what was written ends the writing.
  const waits = whole?.messages.findLast((message) => message.kind !== "activity")?.kind === "customer";
  const writes = whole?.status === "pending" && whole.typing && waits;
  at("typing").dataset.on = String(Boolean(writes));
  at("typing-text").textContent = writes ? word("writing") : "";
  showList(at("list"), conversations, known.selected, (id) => {
    chosenByHand = true;
    press(() => select(id));
  });
  drawHead(whole);
  const asked = showSteps(at("steps"), whole, known.report);
  at("work-sub").textContent = asked ? word("work_for", whole.id) : word("work_none");
  showMeters(at("meters"), known.report);
  showWire(at("wire"), whole?.deliveries ?? []);
  drawPill();
  at("crash").hidden = !known.report?.can_crash;
  at("crash").disabled = !known.report?.ready || !known.connected;
}

function drawHead(whole) {
  at("thread-title").textContent = whole ? `${whole.customer} #${whole.id}` : word("no_conversation");
  const badge = at("status");
  badge.hidden = !whole;
  badge.dataset.status = whole?.status ?? "";
  badge.textContent = whole ? word(whole.status) : "";
  const facts = whole ? [
    whole.assignee && word("assigned", whole.assignee), whole.team && word("team", whole.team),
    whole.priority && word("priority", whole.priority), ...whole.labels.map((label) => `#${label}`),
  ].filter(Boolean) : [];
  at("facts").textContent = facts.join(" · ");
  at("take").disabled = !whole || (whole.status === "open" && Boolean(whole.assignee));
  at("give").disabled = !whole || whole.status === "pending";
  at("resolve").disabled = !whole || whole.status === "resolved";
  for (const part of at("desk-form").elements) part.disabled = !whole;
}

function drawPill() {
  const ready = known.report?.ready;
  const state = !known.connected ? "lost" : ready === true ? "up" : ready === false ? "down" : "unknown";
  const text = state === "lost" ? word("lost") : word(`gateway_${state}`);
  if (at("pill-text").textContent !== text) at("pill-text").textContent = text;
  at("pill").dataset.state = state;
}

/** Says aloud what the eye sees on the humans' side. */
function announce(before, after) {
  if (before?.id !== after?.id || !before) return;
  const notes = (whole) => whole.messages.filter((message) => message.kind === "note").length;
  const said = [];
  if (before.status !== after.status) said.push(word("announce_status", word(after.status)));
  if (notes(after) > notes(before)) said.push(word("announce_note"));
  if (said.length) at("announce").textContent = said.join(". ");
}

function drawWords() {
  apply();
  at("chips").replaceChildren(...word("chips").map(([label, text]) => {
    const chip = make("button", "chip", label);
    chip.type = "button";
    chip.addEventListener("click", () => press(() => customerSays(text)));
    return chip;
  }));
  draw();
}

// What is known.

async function readAll() {
  const state = await ask("/demo/state");
  known.shop = state.shop ?? "";
  known.conversations = new Map(state.conversations.map((one) => [one.id, one]));
  known.report = await ask("/demo/gateway");
  if (!known.conversations.has(known.selected)) known.selected = state.conversations[0]?.id ?? null;
  if (known.selected !== null) await readOne(known.selected);
  return state.after;
}

async function readOne(id) {
  const whole = await ask(`/demo/conversations/${id}`);
  const isNew = !known.conversations.has(id);
  known.conversations.set(id, whole);
  if (known.selected === null || (isNew && !chosenByHand)) known.selected = id;
  if (id === known.selected) {
    announce(known.whole, whole);
    known.whole = whole;
  }
}

async function select(id) {
  known.selected = id;
  await readOne(id);
  draw();
}

const stale = { conversations: new Set(), gateway: false, all: false };
let refreshing = null;

/** Reads again what has changed, one round at a time. */
function refresh() {
  refreshing ??= (async () => {
    await new Promise((done) => setTimeout(done, GATHER_MS));
    const { all, gateway } = stale;
    const ids = [...stale.conversations];
    stale.all = stale.gateway = false;
    stale.conversations.clear();
    try {
      if (all) await readAll();
      else {
        for (const id of ids) await readOne(id);
        if (gateway) known.report = await ask("/demo/gateway");
      }
    } catch {
      // The stream breaks too, and everything is read again when it is back.
      stale.all = true;
      await new Promise((done) => setTimeout(done, AGAIN_MS));
    }
    draw();
    refreshing = null;
    if (known.connected && (stale.all || stale.gateway || stale.conversations.size)) refresh();
  })();
}

let lastSeen = null;
function listen() {
  const stream = new EventSource(`/control/events${lastSeen === null ? "" : `?after=${lastSeen}`}`);
  stream.onopen = () => {
    known.connected = true;
    if (stale.all) refresh();
    draw();
  };
  stream.onmessage = (event) => {
    if (event.lastEventId) lastSeen = event.lastEventId;
    const happening = JSON.parse(event.data);
    if (happening.kind === "lines_lost") stale.all = true;
    else if (happening.kind === "gateway_told") stale.gateway = true;
    else if (happening.conversation_id > 0) stale.conversations.add(happening.conversation_id);
    refresh();
  };
  stream.onerror = () => {
    known.connected = false;
    draw();
    // A browser that gave up does not try again by itself.
    if (stream.readyState === EventSource.CLOSED) setTimeout(listen, AGAIN_MS);
  };
}

// What people do.

async function newConversation() {
  const name = NAMES[known.conversations.size % NAMES.length];
  const plain = name.normalize("NFD").replace(/[^A-Za-z ]/g, "").toLowerCase().replace(" ", ".");
  const contact = { name, email: `${plain}@example.com`, phone_number: null };
  const made = await tell("/control/conversations", { contact });
  await select(made.conversation_id);
}

async function customerSays(text) {
  if (known.selected === null) await newConversation();
  await act({ act: "customer_says", text });
}

/** A form with one text: Enter sends, Shift+Enter begins a line, and what could not be sent stays. */
function composer(form, text, send) {
  const fit = () => {
    text.style.blockSize = "auto";
    text.style.blockSize = `${Math.min(text.scrollHeight + 2, 140)}px`;
  };
  text.addEventListener("input", fit);
  text.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    form.requestSubmit();
  });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const said = text.value.trim();
    if (!said) return;
    text.value = "";
    fit();
    try {
      await tried(() => send(said));
    } catch {
      if (!text.value) text.value = said;
      fit();
    }
  });
}

composer(at("chat-form"), at("chat-text"), customerSays);
composer(at("desk-form"), at("desk-text"), (text) => {
  const mode = new FormData(at("desk-form")).get("mode");
  return act({ act: mode === "note" ? "private_note" : "human_replies", text });
});
at("new-chat").addEventListener("click", async () => {
  await press(newConversation);
  at("chat-text").focus();
});
at("take").addEventListener("click", () => press(() => act({ act: "human_takes_over" })));
at("give").addEventListener("click", () => press(() => act({ act: "set_pending" })));
at("resolve").addEventListener("click", () => press(() => act({ act: "resolve" })));
at("crash").addEventListener("click", () => press(() => tell("/control/crash", {})));
at("languages").addEventListener("click", (event) => {
  const wish = event.target.closest("[data-language]")?.dataset.language;
  if (wish) {
    choose(wish);
    drawWords();
  }
});
at("tabs").addEventListener("click", (event) => {
  const view = event.target.closest("[data-view]")?.dataset.view;
  if (view) showView(view);
});

/** On a narrow screen one of the three parts is seen. */
function showView(view) {
  at("stage").dataset.view = view;
  for (const tab of at("tabs").children) {
    if (tab.dataset.view === view) tab.setAttribute("aria-current", "true");
    else tab.removeAttribute("aria-current");
  }
}

showView("customer");
drawWords();
try {
  lastSeen = await readAll();
} catch {
  complain();
}
drawWords();
listen();
