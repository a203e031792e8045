// The official OpenAI client for Node against Relais, before a real model.
//
//   RELAIS_BASE_URL=http://127.0.0.1:8080/v1 RELAIS_API_KEY=rk_… node sdk_node.mjs [--direct]
//
// What it is for, its environment and `--direct`: as in sdk_python.py. Both exist because the two
// clients differ where it hurts: this one decodes without asking and, told to wait, waits any
// length of time. Its package is looked up in .cache/real/node, where setup.sh put it.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import path from "node:path";
import process from "node:process";
import { fileURLToPath, pathToFileURL } from "node:url";

import { Suite, need } from "./report.mjs";

const here = path.dirname(fileURLToPath(import.meta.url));
const installed = createRequire(path.join(here, "../../.cache/real/node/package.json"));
const { default: OpenAI } = await import(pathToFileURL(installed.resolve("openai")).href);

const BASE_URL = need("RELAIS_BASE_URL").replace(/\/$/, "");
const API_KEY = need("RELAIS_API_KEY");
const MODEL = process.env.RELAIS_MODEL ?? "smollm2-135m";
const TIMEOUT_MS = 90_000;
const TOO_LARGE_BYTES = Number(process.env.RELAIS_TOO_LARGE_BYTES ?? 40 * 1024 * 1024);
// As upstream_idle.py: enough for a busy machine, much less than the answer would have taken.
const IDLE_WAIT_MS = 6_000;

const suite = new Suite("openai-node");

function client(apiKey = API_KEY, maxRetries = 0) {
  return new OpenAI({ baseURL: BASE_URL, apiKey, maxRetries, timeout: TIMEOUT_MS });
}

/** A client and the list of requests it really sends, one entry an attempt. */
function countingClient(apiKey, maxRetries) {
  const attempts = [];
  const counted = (url, init) => {
    attempts.push(String(url));
    return fetch(url, init);
  };
  const made = new OpenAI({ baseURL: BASE_URL, apiKey, maxRetries, timeout: TIMEOUT_MS, fetch: counted });
  return { made, attempts };
}

/** The body of a short, repeatable chat. */
function ask(text = "Say hello.", more = {}) {
  return { model: MODEL, messages: [{ role: "user", content: text }], max_tokens: 16, temperature: 0, ...more };
}

async function expectError(kind, call) {
  try {
    await call();
  } catch (error) {
    assert(error instanceof kind, `${error.name} (${error.message}) instead of ${kind.name}`);
    return error;
  }
  throw new assert.AssertionError({ message: `no ${kind.name}, but an answer` });
}

/** The error object as OpenAI documents it: four fields, and a code that is text or null. */
function expectOpenAiError(error) {
  const body = error.error;
  assert(body && typeof body === "object", "no error object");
  for (const field of ["message", "type", "param", "code"]) assert(field in body, `no ${field}`);
  assert(typeof body.message === "string" && body.message.length > 0, "an empty message");
  assert(typeof body.type === "string" && body.type.length > 0, "an empty type");
  assert(body.code === null || typeof body.code === "string", `code is ${body.code}`);
  assert(error.requestID, "no x-request-id");
  return body;
}

async function collect(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return chunks;
}

/** One of llama.cpp's own counters. */
async function modelCounter(name) {
  const answer = await fetch(`${need("RELAIS_MODEL_ADDRESS")}/metrics`, {
    headers: { authorization: `Bearer ${process.env.RELAIS_MODEL_KEY ?? ""}` },
  });
  const line = (await answer.text()).split("\n").find((text) => text.startsWith(`${name} `));
  assert(line, `the model server shows no ${name}`);
  return Number(line.split(" ")[1]);
}

async function waitUntilIdle() {
  const deadline = performance.now() + IDLE_WAIT_MS;
  while ((await modelCounter("llamacpp:requests_processing")) > 0) {
    assert(performance.now() < deadline, "the model still generates for a client that has left");
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

// Answers

suite.check("chat, unary", async () => {
  const answer = await client().chat.completions.create(ask());
  assert.equal(answer.object, "chat.completion");
  assert(answer.choices[0].message.content.length > 0);
  assert(["stop", "length"].includes(answer.choices[0].finish_reason));
  const { prompt_tokens, completion_tokens, total_tokens } = answer.usage;
  assert(prompt_tokens > 0 && completion_tokens > 0 && completion_tokens <= 16);
  assert.equal(total_tokens, prompt_tokens + completion_tokens);
});

suite.gatewayCheck("chat: an aliased model name", async () => {
  const answer = await client().chat.completions.create(ask("Say hello.", { model: need("RELAIS_MODEL_ALIAS") }));
  assert(answer.choices[0].message.content.length > 0);
});

suite.check("stream with usage: one last chunk has it", async () => {
  const body = ask("Tell me about cats.", { stream: true, stream_options: { include_usage: true } });
  const chunks = await collect(await client().chat.completions.create(body));
  const last = chunks.at(-1);
  assert.deepEqual(last.choices, []);
  assert(last.usage.completion_tokens > 0);
  assert.equal(last.usage.total_tokens, last.usage.prompt_tokens + last.usage.completion_tokens);
  for (const chunk of chunks.slice(0, -1)) assert(chunk.choices.length > 0 && !chunk.usage);
  assert(chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join("").length > 0);
});

suite.check("stream without usage: none is shown", async () => {
  const chunks = await collect(await client().chat.completions.create(ask("Say hello.", { stream: true })));
  assert(chunks.length > 2);
  for (const chunk of chunks) assert(chunk.choices.length > 0 && !chunk.usage, "usage that was not asked for");
  assert(["stop", "length"].includes(chunks.at(-1).choices[0].finish_reason));
});

suite.check("stream helper: what the events add up to", async () => {
  const stream = client().chat.completions.stream(ask("Say hello.", { stream_options: { include_usage: true } }));
  let heard = "";
  stream.on("content", (delta) => {
    heard += delta;
  });
  const whole = await stream.finalChatCompletion();
  assert.equal(whole.choices[0].message.content, heard);
  assert((await stream.totalUsage()).total_tokens > 0);
});

const WEATHER = {
  type: "function",
  function: {
    name: "get_weather",
    description: "The weather in a city.",
    parameters: {
      type: "object",
      properties: { city: { type: "string", enum: ["Paris", "Rome"] } },
      required: ["city"],
      additionalProperties: false,
    },
  },
};

suite.check("tools: a call, its result, an answer", async () => {
  const question = ask("What is the weather in Paris?", { tools: [WEATHER], max_tokens: 64 });
  const first = await client().chat.completions.create({ ...question, tool_choice: "required" });
  assert.equal(first.choices[0].finish_reason, "tool_calls");
  const [call] = first.choices[0].message.tool_calls;
  assert.equal(call.function.name, "get_weather");
  assert(["Paris", "Rome"].includes(JSON.parse(call.function.arguments).city));
  const result = { role: "tool", tool_call_id: call.id, content: "Sunny, 21 degrees." };
  question.messages = [...question.messages, first.choices[0].message, result];
  const second = await client().chat.completions.create(question);
  assert(second.choices[0].message.content || second.choices[0].message.tool_calls);
});

suite.check("tools in a stream: the pieces make one call", async () => {
  const body = ask("What is the weather in Rome?", { tools: [WEATHER], max_tokens: 64, tool_choice: "required" });
  const whole = await client().chat.completions.stream(body).finalChatCompletion();
  const [call] = whole.choices[0].message.tool_calls;
  assert.equal(call.function.name, "get_weather");
  assert(["Paris", "Rome"].includes(JSON.parse(call.function.arguments).city));
});

suite.check("JSON schema: the answer obeys it", async () => {
  const schema = {
    type: "object",
    properties: { mood: { type: "string", enum: ["good", "bad"] }, sure: { type: "boolean" } },
    required: ["mood", "sure"],
    additionalProperties: false,
  };
  const answer = await client().chat.completions.create(
    ask("I love this shop! Which mood is that?", {
      max_tokens: 64,
      response_format: { type: "json_schema", json_schema: { name: "mood", strict: true, schema } },
    }),
  );
  const value = JSON.parse(answer.choices[0].message.content);
  assert.deepEqual(Object.keys(value).sort(), ["mood", "sure"]);
  assert(["good", "bad"].includes(value.mood) && typeof value.sure === "boolean");
});

suite.check("models: the list", async () => {
  const ids = [];
  for await (const model of client().models.list()) ids.push(model.id);
  assert(ids.includes(MODEL), ids.join());
});

suite.gatewayCheck("models: one by name, and one that is not there", async () => {
  assert.equal((await client().models.retrieve(MODEL)).id, MODEL);
  expectOpenAiError(await expectError(OpenAI.NotFoundError, () => client().models.retrieve("no-such-model")));
});

// Headers

suite.gatewayCheck("x-request-id: readable, and a new one each time", async () => {
  const seen = new Set();
  for (let call = 0; call < 2; call += 1) {
    seen.add((await client().chat.completions.create(ask("Hi", { max_tokens: 1 })))._request_id);
  }
  assert(seen.size === 2 && !seen.has(null) && !seen.has(undefined), [...seen].join());
});

suite.gatewayCheck("x-ratelimit-*: on a stream's head too", async () => {
  const { response, data } = await client().chat.completions.create(ask("Hi", { stream: true })).withResponse();
  for (const kind of ["requests", "tokens"]) {
    for (const what of ["limit", "remaining", "reset"]) {
      assert(response.headers.get(`x-ratelimit-${what}-${kind}`) !== null, `no x-ratelimit-${what}-${kind}`);
    }
    const limit = Number(response.headers.get(`x-ratelimit-limit-${kind}`));
    const left = Number(response.headers.get(`x-ratelimit-remaining-${kind}`));
    assert(left >= 0 && left < limit, `${kind}: ${left} left of ${limit}`);
  }
  await collect(data);
});

// Refusals

suite.gatewayCheck("wrong key: AuthenticationError, code and all, one attempt", async () => {
  for (const key of ["rk_test_zzzzzzzzzzzz_00000000000000000000000000000000", "sk-something-else"]) {
    const { made, attempts } = countingClient(key, 2);
    const error = await expectError(OpenAI.AuthenticationError, () => made.chat.completions.create(ask()));
    assert.equal(typeof expectOpenAiError(error).code, "string");
    assert.equal(attempts.length, 1);
  }
});

suite.gatewayCheck("unknown model, unknown route, bad fields: typed errors", async () => {
  const unknown = await expectError(OpenAI.APIError, () =>
    client().chat.completions.create(ask("Hi", { model: "no-such-model" })),
  );
  assert([400, 404].includes(unknown.status), `${unknown.status}`);
  expectOpenAiError(unknown);
  expectOpenAiError(await expectError(OpenAI.NotFoundError, () => client().get("/nothing-here")));
  for (const fields of [{ max_tokens: "many" }, { stream: "yes" }, { model: 7 }]) {
    const error = await expectError(OpenAI.BadRequestError, () =>
      client().post("/chat/completions", { body: ask("Hi", fields) }),
    );
    expectOpenAiError(error);
  }
});

suite.gatewayCheck("too large: 413", async () => {
  const error = await expectError(OpenAI.APIError, () =>
    client().chat.completions.create(ask("a".repeat(TOO_LARGE_BYTES))),
  );
  assert.equal(error.status, 413);
  expectOpenAiError(error);
});

suite.gatewayCheck("plan without API access: 403, one attempt", async () => {
  const { made, attempts } = countingClient(need("RELAIS_KEY_NO_API"), 2);
  const error = await expectError(OpenAI.PermissionDeniedError, () => made.chat.completions.create(ask()));
  assert.equal(expectOpenAiError(error).code, "feature_not_in_plan");
  assert.equal(attempts.length, 1);
});

/** Calls until refused; gives the error and how many calls went through before. */
async function callUntilRefused(patient, kind, callsMax) {
  for (let done = 0; done < callsMax; done += 1) {
    try {
      await patient.chat.completions.create(ask("Hi", { max_tokens: 1 }));
    } catch (error) {
      assert(error instanceof kind, `${error.name}: ${error.message}`);
      return { error, done };
    }
  }
  throw new assert.AssertionError({ message: `not refused in ${callsMax} calls` });
}

suite.gatewayCheck("rate limit: RateLimitError says when, and a retry then goes through", async () => {
  const key = need("RELAIS_KEY_RATE");
  const { error, done } = await callUntilRefused(client(key), OpenAI.RateLimitError, 30);
  assert(done > 0, "refused at once");
  assert.equal(typeof expectOpenAiError(error).code, "string");
  const seconds = Number(error.headers.get("retry-after"));
  const milliseconds = Number(error.headers.get("retry-after-ms"));
  assert(seconds >= 1 && seconds <= 60, `${seconds}`);
  assert(milliseconds > (seconds - 1) * 1000 && milliseconds <= seconds * 1000, `${milliseconds} ms, ${seconds} s`);
  const { made, attempts } = countingClient(key, 1);
  assert((await made.chat.completions.create(ask("Hi", { max_tokens: 1 }))).choices.length > 0);
  assert.equal(attempts.length, 2);
});

suite.gatewayCheck("monthly calls used up: 429 that is not slept on", async () => {
  const key = need("RELAIS_KEY_CALLS");
  const { error, done } = await callUntilRefused(client(key), OpenAI.RateLimitError, 30);
  assert(done > 0, "refused at once");
  assert.equal(expectOpenAiError(error).code, "quota_exceeded");
  assert.equal(error.headers.get("x-should-retry"), "false");
  // This client would sleep until the end of the month.
  assert.equal(error.headers.get("retry-after") ?? error.headers.get("retry-after-ms"), null);
  const { made, attempts } = countingClient(key, 2);
  await expectError(OpenAI.RateLimitError, () => made.chat.completions.create(ask()));
  assert.equal(attempts.length, 1);
});

suite.gatewayCheck("token budget used up: 402 that is not retried", async () => {
  const key = need("RELAIS_KEY_TOKENS");
  const { error, done } = await callUntilRefused(client(key), OpenAI.APIError, 60);
  assert.equal(error.status, 402);
  assert(done > 0, "refused at once");
  assert.equal(expectOpenAiError(error).code, "token_budget_exhausted");
  assert.equal(error.headers.get("x-should-retry"), "false");
  assert.equal(error.headers.get("retry-after") ?? error.headers.get("retry-after-ms"), null);
  const { made, attempts } = countingClient(key, 2);
  await expectError(OpenAI.APIError, () => made.chat.completions.create(ask()));
  assert.equal(attempts.length, 1);
});

// Leaving

suite.check("a client that leaves its stream: the model stops, the next call works", async () => {
  await waitUntilIdle();
  const long = ask("Tell a long story.", { max_tokens: 3500, ignore_eos: true, stream: true });
  const stream = await client().chat.completions.create(long);
  let received = 0;
  for await (const chunk of stream) {
    assert(chunk.choices.length > 0);
    received += 1;
    if (received === 4) {
      assert.equal(await modelCounter("llamacpp:requests_processing"), 1, "through before anyone could leave");
      break; // leaving the loop aborts the request
    }
  }
  await waitUntilIdle();
  assert((await client().chat.completions.create(ask())).choices[0].message.content.length > 0);
});

process.exitCode = await suite.run({ direct: process.argv.includes("--direct") });
