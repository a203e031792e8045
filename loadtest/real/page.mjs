// The demo's page in headless Chromium, as its two people use it: a customer and a human, by mouse and by keyboard.
//
//   RELAIS_PAGE_URL=http://127.0.0.1:13000/demo [RELAIS_PAGE_SUITE=page-llm] node page.mjs
//
// The gateway behind it is the real one, in a running `relais-load demo`. As `page` the agent answers from documents,
// and everything is checked; as `page-llm` a small real model answers, and only what does not depend on its words is. Screenshots are left in .cache/real/page, for
// a person to look at. Nothing is timed: a wait ends when what it waits for is there, or fails after a minute.
// Packages are looked up in .cache/real/node, where setup.sh put them; the browser is Debian's.

import assert from "node:assert/strict";
import { mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import process from "node:process";
import { fileURLToPath, pathToFileURL } from "node:url";

import { Suite, need } from "./report.mjs";

const here = path.dirname(fileURLToPath(import.meta.url));
const cache = path.join(here, "../../.cache/real");
const installed = createRequire(path.join(cache, "node/package.json"));
const { chromium } = (await import(pathToFileURL(installed.resolve("playwright-core")).href)).default;
const RULES = readFileSync(installed.resolve("axe-core/axe.min.js"), "utf8");

const PAGE = need("RELAIS_PAGE_URL");
const ORIGIN = new URL(PAGE).origin;
const SHOTS = path.join(cache, "page");
// A tiny model on one busy thread may think for long; a page is quick, or broken.
const WAIT_MS = process.env.RELAIS_PAGE_SUITE === "page-llm" ? 240_000 : 60_000;
// A crash is drawn until it falls into a turn: one lasts for most of a second, and the page is told within a tenth.
const CRASHES_MAX = 6;
const WIDE = { width: 1360, height: 880 };
const PHONE = { width: 390, height: 800 };
const FLAGS = [
  ...["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"],
  ...["--disable-background-networking", "--disable-component-update", "--disable-sync"],
];

mkdirSync(SHOTS, { recursive: true });
const NAME = process.env.RELAIS_PAGE_SUITE ?? "page";
const suite = new Suite(NAME);
/** A check of what depends on what the agent says. */
const checkWords = (title, run) => NAME === "page" && suite.check(title, run);
const browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: FLAGS });
/** What no page may do: complain, fail, or ask anybody else. */
const offences = [];

/** A browser of its own with the page open in it. */
async function open({ viewport = WIDE, colorScheme = "light", locale = "en-GB" } = {}) {
  const context = await browser.newContext({ viewport, colorScheme, locale, reducedMotion: "reduce" });
  context.setDefaultTimeout(WAIT_MS);
  const page = await context.newPage();
  page.on("pageerror", (error) => offences.push(`error: ${error.message}`));
  page.on("console", (line) => ["error", "warning"].includes(line.type()) && offences.push(`console: ${line.text()}`));
  page.on("request", (request) => request.url().startsWith(`${ORIGIN}/`) || offences.push(`asked ${request.url()}`));
  await page.goto(PAGE);
  await page.locator("#pill[data-state=up]").waitFor();
  return page;
}

/** The customer begins a conversation of their own. */
async function newChat(page) {
  const before = await page.locator("#thread-title").textContent();
  await page.locator("#new-chat").click();
  await page.waitForFunction((before) => document.getElementById("thread-title").textContent !== before, before);
  await page.locator("#chat-log .empty").waitFor();
}

async function says(page, text) {
  await page.locator("#chat-text").fill(text);
  await page.locator("#chat-form button").click();
  await page.locator("#chat-log .message.customer", { hasText: text }).last().waitFor();
}

async function humanReplies(page, text) {
  await page.locator("#desk-text").fill(text);
  await page.locator("#desk-form button").click();
  await page.locator("#chat-log .message.human", { hasText: text }).waitFor();
}

const shown = (page, step, text) => page.locator(`#steps [data-step=step_${step}]`, { hasText: text }).waitFor();
const agent = (page) => page.locator("#chat-log .message.agent");
const status = (page, word) => page.locator("#status", { hasText: word }).waitFor();
const shot = (page, name) => page.screenshot({ path: path.join(SHOTS, `${NAME}-${name}.png`) });

checkWords("the conversation that make run plays is on the page, from question to human", async () => {
  const page = await open();
  await page.locator("#chat-log .source", { hasText: "Delivery" }).first().waitFor();
  await page.locator("#desk-log .message.note", { hasText: "The customer asked for a human" }).waitFor();
  await status(page, "With humans");
  await shown(page, "outcome", "the customer asked for one");
  assert.equal(await page.locator("#chat-log .message.note").count(), 0, "a customer sees a private note");
  await shot(page, "played-wide-light");
  await page.context().close();
});

checkWords("a question is answered with its source, and each step is told", async () => {
  const page = await open();
  await newChat(page);
  await says(page, "How long does delivery take?");
  await agent(page).filter({ hasText: "two working days" }).waitFor();
  await page.locator("#chat-log .source", { hasText: "Delivery" }).waitFor();
  await shown(page, "delivery", "message_created");
  await shown(page, "delivery", "signed");
  await shown(page, "ack", /200 in .* ms/);
  await shown(page, "turn", "finished");
  await shown(page, "outcome", "Answered");
  await page.locator("#meters [data-meter=tokens_left]", { hasText: "100,000" }).waitFor();
  await status(page, "With the agent");
  await shot(page, "answered-wide-light");
  await page.context().close();
});

if (NAME === "page-llm") {
  suite.check("the model answers, and its tokens are on the page", async () => {
    const page = await open();
    await newChat(page);
    await says(page, "Hello! Do you sell boots?");
    await agent(page).first().waitFor();
    await shown(page, "outcome", /Answered|A human takes over/);
    await page.locator("#meters [data-meter=agent_tokens] strong").filter({ hasText: /[1-9]/ }).waitFor();
    await shot(page, "model-wide-light");
    await page.context().close();
  });

  suite.check("whoever asks for a human gets one, whatever the model thinks", async () => {
    const page = await open({ locale: "fr-FR" });
    await newChat(page);
    await says(page, "Je veux parler à un humain");
    await status(page, "Avec un humain");
    await page.locator("#desk-log .message.note", { hasText: "Je veux parler à un humain" }).waitFor();
    await page.context().close();
  });
}

const french = { page: null };
checkWords("une question en français a sa réponse en français", async () => {
  const page = await open({ locale: "fr-FR", colorScheme: "dark" });
  french.page = page;
  assert.equal(await page.locator("html").getAttribute("lang"), "fr");
  await newChat(page);
  await says(page, "Quels sont les délais de livraison ?");
  await agent(page).filter({ hasText: "deux jours ouvrés" }).waitFor();
  await page.locator("#chat-log .source", { hasText: "Livraison" }).waitFor();
  await shown(page, "outcome", "Réponse envoyée");
  await status(page, "Avec l’agent");
});

checkWords("« je veux parler à un humain » : the conversation moves over, with a note", async () => {
  const { page } = french;
  await says(page, "Je veux parler à un humain");
  await status(page, "Avec un humain");
  await page.locator("#desk-log .message.note", { hasText: "Je veux parler à un humain" }).waitFor();
  await shown(page, "outcome", "le client l’a demandé");
  assert.equal(await page.locator("#chat-log .message.note").count(), 0, "a customer sees a private note");
  await shot(page, "handed-over-wide-dark");
});

checkWords("a human replies: the agent is silent", async () => {
  const { page } = french;
  await humanReplies(page, "Bonjour, ici Hugo.");
  const before = await agent(page).count();
  await says(page, "Quels moyens de paiement acceptez-vous ?");
  // The gateway itself says that it is done with this message.
  await shown(page, "outcome", /l’agent se tait|Rien à répondre/);
  assert.equal(await agent(page).count(), before, "the agent spoke over a human");
});

checkWords("resolved: the agent has it again", async () => {
  const { page } = french;
  await humanReplies(page, "Nous acceptons les cartes et les virements.");
  await page.locator("#resolve").click();
  await status(page, "Résolue");
  const before = await agent(page).count();
  await says(page, "Quels sont les délais de livraison ?");
  await agent(page).nth(before).filter({ hasText: "deux jours ouvrés" }).waitFor();
  await status(page, "Avec l’agent");
  await shot(page, "back-wide-dark");
  await page.context().close();
});

suite.check("the gateway is killed in the middle of a turn: the answer comes after the restart, once", async () => {
  const page = await open();
  // Only once the play is over is somebody there to do it.
  await page.locator("#crash").waitFor();
  for (let round = 1; ; round += 1) {
    await newChat(page);
    await says(page, "How long does delivery take?");
    await shown(page, "ack", "200 in");
    await page.locator("#crash").click();
    await page.locator("#pill[data-state=down]").waitFor();
    if ((await agent(page).count()) === 0) break;
    // The turn was quicker than the crash: that shows nothing.
    assert.ok(round < CRASHES_MAX, `no crash fell into a turn in ${CRASHES_MAX} rounds`);
    await page.locator("#pill[data-state=up]").waitFor();
  }
  await shown(page, "turn", "Interrupted");
  await shot(page, "killed-wide-light");
  await page.locator("#pill[data-state=up]").waitFor();
  await agent(page).first().waitFor();
  await shown(page, "outcome", NAME === "page" ? "Answered" : /Answered|A human takes over/);
  assert.equal(await agent(page).count(), 1, "answered twice");
  await page.context().close();
});

checkWords("the agent asks back, and a button is an answer", async () => {
  const page = await open();
  await newChat(page);
  await says(page, "delivery");
  await page.locator("#chat-log .choices button", { hasText: "What does delivery cost?" }).click();
  await page.locator("#chat-log .chosen", { hasText: "What does delivery cost?" }).waitFor();
  await agent(page).nth(1).filter({ hasText: "4.90" }).waitFor();
  await page.context().close();
});

checkWords("what a customer writes stays text", async () => {
  const page = await open();
  await newChat(page);
  const hostile = '<img src="/demo/x" onerror="alert(1)"><b>hello</b>';
  await says(page, hostile);
  await page.locator("#desk-log .message.customer", { hasText: hostile }).waitFor();
  assert.equal(await page.locator("main img, main b").count(), 0, "markup came alive");
  await page.context().close();
});

/** Goes on by Tab to an element; every stop on the way must show where it is. */
async function tabTo(page, selector) {
  for (let step = 0; step < 80; step += 1) {
    await page.keyboard.press("Tab");
    const at = await page.evaluate((selector) => {
      const focused = document.activeElement;
      const { outlineStyle, outlineWidth } = getComputedStyle(focused);
      const isSeen = focused === document.body || (outlineStyle !== "none" && parseFloat(outlineWidth) >= 2);
      return { there: focused.matches(selector), isSeen, name: focused.id || focused.className };
    }, selector);
    assert.ok(at.isSeen, `the focus cannot be seen at ${at.name}`);
    if (at.there) return;
  }
  assert.fail(`Tab never comes to ${selector}`);
}

checkWords("all of it by keyboard alone", async () => {
  const page = await open();
  const before = await page.locator("#thread-title").textContent();
  await tabTo(page, "#new-chat");
  await page.keyboard.press("Enter");
  await page.waitForFunction((before) => document.getElementById("thread-title").textContent !== before, before);
  await page.waitForFunction(() => document.activeElement.id === "chat-text");
  await page.keyboard.type("I want to talk to a human");
  await page.keyboard.press("Enter");
  await status(page, "With humans");
  await tabTo(page, "#take");
  await page.keyboard.press("Enter");
  await page.locator("#facts", { hasText: "Hugo Human" }).waitFor();
  await tabTo(page, "#desk-text");
  await page.keyboard.type("Hugo here");
  await page.keyboard.press("Enter");
  await page.locator("#chat-log .message.human", { hasText: "Hugo here" }).waitFor();
  await page.keyboard.press("Shift+Tab");
  await page.keyboard.press("ArrowRight");
  await tabTo(page, "#desk-text");
  await page.keyboard.type("Called back.");
  await page.keyboard.press("Enter");
  await page.locator("#desk-log .message.note", { hasText: "Called back." }).waitFor();
  // The skip link is the first stop of a fresh page and leads into the chat.
  await page.reload();
  await page.locator("#pill[data-state=up]").waitFor();
  await page.keyboard.press("Tab");
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => document.activeElement.id === "chat-text");
  await page.context().close();
});

const VIEWS = ["customer", "human", "relais"];

for (const [looks, colorScheme, locale] of [["light", "light", "en-GB"], ["dark", "dark", "fr-FR"]]) {
  checkWords(`names, roles and contrast, wide and on a phone: ${looks}`, async () => {
    const judge = async (page, where) => {
      await page.evaluate(RULES);
      const { violations } = await page.evaluate(() => globalThis.axe.run());
      const found = violations.map((one) => `${one.id}: ${one.nodes.map((node) => node.target.join(" ")).join(", ")}`);
      assert.deepEqual(found, [], where);
    };
    const wide = await open({ colorScheme, locale });
    await wide.locator("details.wire summary").click();
    await judge(wide, "wide");
    await shot(wide, `wide-${looks}`);
    await wide.context().close();
    const phone = await open({ viewport: PHONE, colorScheme, locale });
    for (const view of VIEWS) {
      await phone.locator(`#tabs [data-view=${view}]`).click();
      await judge(phone, `phone, ${view}`);
      const overflow = await phone.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      assert.ok(overflow <= 0, `${view} is ${overflow} px too wide for a phone`);
      await shot(phone, `phone-${view}-${looks}`);
    }
    await phone.context().close();
  });
}

checkWords("a chosen language stays chosen", async () => {
  const page = await open();
  await page.locator("[data-language=fr]").click();
  await page.locator("#desk-title", { hasText: "Boîte de réception" }).waitFor();
  await page.reload();
  await page.locator("#desk-title", { hasText: "Boîte de réception" }).waitFor();
  await page.context().close();
});

suite.check("no page complained, failed or asked anybody else", () => {
  assert.deepEqual(offences, []);
});

const code = await suite.run({ direct: false });
await browser.close();
process.exit(code);
