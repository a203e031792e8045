// What the gateway makes of the customer's latest message: delivery, acknowledgement, turn, outcome; and what is left
// of the plan.
//
// The first two are the fake Chatwoot's own observation. The rest is what the gateway tells of itself, as far as
// somebody brings it; without that, a step says that nothing is known yet.

import { number, span, word } from "/demo/words.js";
import { make } from "/demo/talk.js";

const isOk = (attempt) => attempt?.status >= 200 && attempt.status < 300;
const took = (attempt) => span(attempt.answer_us / 1000);

function deliveryStep(delivery) {
  if (!delivery) return ["todo", "–", word("none")];
  return ["done", delivery.event, word(delivery.signed ? "signed" : "unsigned")];
}

function ackStep(delivery) {
  if (!delivery) return ["todo", "–", ""];
  const attempt = delivery.attempts.at(-1);
  if (isOk(attempt)) return ["done", word("ack_done", attempt.status, took(attempt)), word("ack_disk")];
  if (delivery.outcome === "failed" || delivery.outcome === "lost") return ["bad", word("ack_lost"), attempt?.error ?? ""];
  if (!attempt) return ["doing", "…", word("ack_wait")];
  return ["bad", String(attempt.status ?? word("ack_failed")), word("ack_again", delivery.attempts.length)];
}

function turnStep(acknowledged, told, turn, story, conversation, ready) {
  if (!acknowledged || !told) return ["todo", "–", word("turn_wait")];
  if (told.outcome === "unfinished") {
    if (ready === false) return ["bad", word("turn_down"), word("turn_down_why")];
    if (story.not_before_ms > Date.now()) return ["doing", word("turn_put_off"), word("turn_tries", turn?.tries ?? 1)];
    if (conversation.typing || turn) return ["doing", word("turn_writing"), ""];
    return ["doing", word("turn_gather"), word("turn_gather_why")];
  }
  if (!turn) return ["done", word("turn_done"), ""];
  const how = turn.agent ? word("turn_by", turn.agent) : word("turn_in", span(turn.planned_at_ms - told.received_at_ms));
  return ["done", word("turn_done"), how];
}

function outcomeStep(told, turn) {
  if (!told) return ["todo", "–", ""];
  if (told.outcome === "unfinished") return ["todo", word("out_open"), ""];
  const why = word("reasons")[turn?.handoff] ?? turn?.handoff;
  if (told.outcome === "handed_off") return ["done", word("handed_off"), why ?? ""];
  if (told.outcome === "not_ours") return ["done", word("not_ours"), word("not_ours_why")];
  if (told.outcome === "damaged") return ["bad", word("damaged"), ""];
  return ["done", word(told.outcome), word("after", span(told.ended_at_ms - told.received_at_ms))];
}

/** An event's name may break at its underscores. */
function valued(text) {
  const value = make("strong", "value");
  text.split(/(?<=_)/).forEach((piece, place) => value.append(...(place ? [make("wbr")] : []), piece));
  return value;
}

/** The four steps of the latest message of the customer's. */
export function showSteps(list, conversation, report) {
  const asked = conversation?.messages.filter((message) => message.kind === "customer").at(-1);
  const about = (delivery) => delivery.message_id === asked?.id && delivery.event.startsWith("message_");
  const delivery = asked && conversation.deliveries.find(about);
  const story = report?.stories?.[conversation?.id];
  const told = asked && story?.messages.filter((message) => message.message_id === asked.id).at(-1);
  const turn = told?.turn && story.turns.find((one) => one.turn === told.turn);
  const acknowledged = delivery?.attempts.some(isOk);
  const steps = [
    ["step_delivery", deliveryStep(delivery)],
    ["step_ack", ackStep(delivery)],
    ["step_turn", turnStep(acknowledged, told, turn, story, conversation, report?.ready)],
    ["step_outcome", outcomeStep(told, turn)],
  ];
  list.replaceChildren(...steps.map(([name, [state, value, detail]]) => {
    const item = make("li", "step");
    item.dataset.step = name;
    item.dataset.state = state;
    item.append(make("span", "label", word(name)), valued(value), make("span", "detail", detail));
    return item;
  }));
  return asked;
}

function meter(name, left) {
  const whole = make("div", "meter");
  whole.dataset.meter = name;
  const value = make("dd");
  if (typeof left?.remaining !== "number") value.append(make("strong", "", word("unlimited")));
  else {
    const limit = Math.max(left.limit, 1);
    const share = Math.max(0, Math.min(100, (100 * left.remaining) / limit));
    const bar = make("span", "bar");
    bar.append(make("i"));
    bar.firstChild.style.inlineSize = `${share}%`;
    if (share < 20) bar.dataset.low = "true";
    value.append(make("strong", "", number(left.remaining)), make("span", "detail", word("of", number(left.limit))), bar);
  }
  whole.append(make("dt", "", word(name)), value);
  return whole;
}

/** What is left, and what the agent's answers took of a model. */
export function showMeters(list, report) {
  const plan = report?.plan;
  // A gateway that is down tells nothing: what it told last is still the best there is.
  if (!plan) return;
  const meters = [meter("tokens_left", plan.tokens), meter("calls_left", plan.calls_per_month)];
  if (plan.conversations_per_month) meters.push(meter("conversations_left", plan.conversations_per_month));
  const agent = report.used?.agent;
  const whole = make("div", "meter");
  whole.dataset.meter = "agent_tokens";
  const value = make("dd");
  value.append(make("strong", "", number((agent?.input_tokens ?? 0) + (agent?.output_tokens ?? 0))));
  const why = agent ? word("agent_tokens_why", number(agent.input_tokens ?? 0), number(agent.output_tokens ?? 0)) : word("agent_tokens_none");
  value.append(make("span", "detail", why));
  whole.append(make("dt", "", word("agent_tokens")), value);
  list.replaceChildren(...meters, whole);
}

/** The latest webhooks about this conversation. */
export function showWire(body, deliveries) {
  body.replaceChildren(...deliveries.map((delivery) => {
    const attempt = delivery.attempts.at(-1);
    const row = make("tr");
    const cells = [
      delivery.event, word(delivery.signed ? "yes" : "no"), number(delivery.attempts.length),
      attempt ? attempt.status ?? word("ack_failed") : "…", attempt ? took(attempt) : "",
    ];
    row.append(...cells.map((cell) => make("td", "", String(cell))));
    return row;
  }));
}
