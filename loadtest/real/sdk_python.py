"""The official OpenAI client for Python against Relais, before a real model.

    RELAIS_BASE_URL=http://127.0.0.1:8080/v1 RELAIS_API_KEY=rk_… sdk_python.py
    RELAIS_BASE_URL=http://127.0.0.1:18999/v1 RELAIS_API_KEY=… sdk_python.py --direct

What it is for: that a customer who changes nothing but the address gets everything the client
offers: typed answers, streams, tools, schemas, typed errors, its own retries. `--direct` runs the
same against the bare model server, to know whether an oddity is the model's; checks that only a
gateway can pass are then skipped.

Further tenants' keys, each for one refusal: RELAIS_KEY_RATE (few calls a minute),
RELAIS_KEY_CALLS (monthly calls nearly used up), RELAIS_KEY_TOKENS (a tiny token budget),
RELAIS_KEY_NO_API (a plan without API access). RELAIS_MODEL_ADDRESS and RELAIS_MODEL_KEY lead to
the model's own counters.
"""

import json
import os
import sys

import openai
from openai import OpenAI

import upstream_idle
from report import Skip, Suite, need

BASE_URL = need("RELAIS_BASE_URL").rstrip("/")
API_KEY = need("RELAIS_API_KEY")
MODEL = os.environ.get("RELAIS_MODEL", "smollm2-135m")
# A slow machine under load; no check measures time.
TIMEOUT_SECONDS = 90
# More than any sensible limit for a chat request, less than would strain the machine.
TOO_LARGE_BYTES = int(os.environ.get("RELAIS_TOO_LARGE_BYTES", 40 * 1024 * 1024))

suite = Suite("openai-python")


def client(key: str = API_KEY, retries: int = 0) -> OpenAI:
    return OpenAI(base_url=BASE_URL, api_key=key, max_retries=retries, timeout=TIMEOUT_SECONDS)


def counting_client(key: str, retries: int) -> tuple[OpenAI, list[str]]:
    """A client and the list of requests it really sends, one entry an attempt."""
    attempts: list[str] = []
    transport = openai.DefaultHttpxClient(
        event_hooks={"request": [lambda request: attempts.append(str(request.url))]}
    )
    made = OpenAI(
        base_url=BASE_URL, api_key=key, max_retries=retries, timeout=TIMEOUT_SECONDS, http_client=transport
    )
    return made, attempts


def ask(text: str = "Say hello.", **more):
    """The arguments of a short, repeatable chat."""
    return {
        "model": MODEL,
        "messages": [{"role": "user", "content": text}],
        "max_tokens": 16,
        "temperature": 0,
    } | more


def expect_error(kind, call):
    """Runs `call`, which must fail with `kind`; gives the error."""
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}, but an answer")


def expect_openai_error(error: openai.APIStatusError) -> dict:
    """The error object as OpenAI documents it: four fields, and a code that is text or null."""
    body = error.body
    assert isinstance(body, dict), f"no error object: {error.response.text[:200]}"
    assert {"message", "type", "param", "code"} <= body.keys(), f"fields missing: {sorted(body)}"
    assert isinstance(body["message"], str) and body["message"], "an empty message"
    assert isinstance(body["type"], str) and body["type"], "an empty type"
    assert body["code"] is None or isinstance(body["code"], str), f"code is {body['code']!r}"
    assert error.request_id, "no x-request-id"
    return body


# Answers


@suite.check("chat, unary")
def chat_unary():
    answer = client().chat.completions.create(**ask())
    assert answer.object == "chat.completion" and answer.model == MODEL
    choice = answer.choices[0]
    assert choice.message.role == "assistant" and choice.message.content
    assert choice.finish_reason in ("stop", "length")
    usage = answer.usage
    assert usage.prompt_tokens > 0 and 0 < usage.completion_tokens <= 16
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


@suite.check("chat: fields we do not know reach the model")
def chat_pass_through():
    # llama.cpp's own parameter: generation goes on to the limit whatever the model wants.
    answer = client().chat.completions.create(**ask(max_tokens=12, extra_body={"ignore_eos": True}))
    assert answer.usage.completion_tokens == 12 and answer.choices[0].finish_reason == "length"


@suite.check("chat: max_completion_tokens bounds the answer")
def chat_max_completion_tokens():
    body = ask(max_completion_tokens=5, extra_body={"ignore_eos": True})
    del body["max_tokens"]
    answer = client().chat.completions.create(**body)
    assert answer.usage.completion_tokens == 5, answer.usage


@suite.check("chat: an aliased model name", gateway=True)
def chat_alias():
    answer = client().chat.completions.create(**ask(model=need("RELAIS_MODEL_ALIAS")))
    assert answer.choices[0].message.content


@suite.check("stream with usage: one last chunk has it")
def stream_with_usage():
    with client().chat.completions.create(
        **ask("Tell me about cats."), stream=True, stream_options={"include_usage": True}
    ) as stream:
        chunks = list(stream)
    *content, last = chunks
    assert last.choices == [], "the usage chunk has choices"
    assert last.usage.completion_tokens > 0
    assert last.usage.total_tokens == last.usage.prompt_tokens + last.usage.completion_tokens
    assert all(chunk.choices and chunk.usage is None for chunk in content)
    assert content[-1].choices[0].finish_reason in ("stop", "length")
    assert len({chunk.id for chunk in chunks}) == 1
    assert "".join(chunk.choices[0].delta.content or "" for chunk in content)


@suite.check("stream without usage: none is shown")
def stream_without_usage():
    with client().chat.completions.create(**ask(), stream=True) as stream:
        chunks = list(stream)
    assert len(chunks) > 2
    for chunk in chunks:
        assert chunk.choices, "a chunk without choices"
        assert chunk.usage is None, "usage that was not asked for"
    assert chunks[-1].choices[0].finish_reason in ("stop", "length")


@suite.check("stream: a stream costs what the unary call costs")
def stream_costs_the_same():
    question = ask("Count to five.", extra_body={"ignore_eos": True})
    unary = client().chat.completions.create(**question).usage
    with client().chat.completions.create(
        **question, stream=True, stream_options={"include_usage": True}
    ) as stream:
        streamed = list(stream)[-1].usage
    assert (unary.prompt_tokens, unary.completion_tokens) == (streamed.prompt_tokens, streamed.completion_tokens)


@suite.check("stream on the wire: an event stream that ends in [DONE]")
def stream_on_the_wire():
    with client().chat.completions.with_streaming_response.create(**ask(), stream=True) as answer:
        kind = answer.headers["content-type"]
        lines = [line for line in answer.iter_lines() if line]
    assert kind.startswith("text/event-stream"), kind
    assert all(line.startswith("data: ") for line in lines), "a line that is no data"
    assert lines[-1] == "data: [DONE]" and lines.count("data: [DONE]") == 1
    for line in lines[:-1]:
        json.loads(line.removeprefix("data: "))


@suite.check("stream helper: events, and what they add up to")
def stream_helper():
    with client().chat.completions.stream(**ask(), stream_options={"include_usage": True}) as stream:
        kinds = {event.type for event in stream}
        whole = stream.current_completion_snapshot
    assert {"chunk", "content.delta", "content.done"} <= kinds, kinds
    assert whole.choices[0].message.content and whole.usage.total_tokens > 0


WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


@suite.check("tools: a call, its result, an answer")
def tools():
    question = ask("What is the weather in Paris?", tools=[WEATHER], max_tokens=64)
    first = client().chat.completions.create(**question, tool_choice="required").choices[0]
    assert first.finish_reason == "tool_calls", first.finish_reason
    call = first.message.tool_calls[0]
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments)["city"] in ("Paris", "Rome")
    question["messages"] += [
        first.message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": "Sunny, 21 degrees."},
    ]
    second = client().chat.completions.create(**question)
    assert second.choices[0].message.content or second.choices[0].message.tool_calls


@suite.check("tools in a stream: the pieces make one call")
def tools_in_a_stream():
    question = ask("What is the weather in Rome?", tools=[WEATHER], max_tokens=64)
    name, arguments, reason = "", "", None
    with client().chat.completions.create(**question, tool_choice="required", stream=True) as stream:
        for chunk in stream:
            choice = chunk.choices[0]
            reason = choice.finish_reason or reason
            for piece in choice.delta.tool_calls or []:
                name += piece.function.name or ""
                arguments += piece.function.arguments or ""
    assert name == "get_weather" and json.loads(arguments)["city"] in ("Paris", "Rome")
    assert reason == "tool_calls"


@suite.check("JSON schema: the answer obeys it")
def json_schema():
    schema = {
        "type": "object",
        "properties": {"mood": {"type": "string", "enum": ["good", "bad"]}, "sure": {"type": "boolean"}},
        "required": ["mood", "sure"],
        "additionalProperties": False,
    }
    answer = client().chat.completions.create(
        **ask(
            "I love this shop! Which mood is that?",
            max_tokens=64,
            response_format={"type": "json_schema", "json_schema": {"name": "mood", "strict": True, "schema": schema}},
        )
    )
    value = json.loads(answer.choices[0].message.content)
    assert set(value) == {"mood", "sure"} and value["mood"] in ("good", "bad") and isinstance(value["sure"], bool)


@suite.check("models: the list")
def models_list():
    models = client().models.list().data
    assert MODEL in [model.id for model in models], [model.id for model in models]
    assert all(model.object == "model" for model in models)


@suite.check("models: one by name, and one that is not there", gateway=True)
def models_retrieve():
    assert client().models.retrieve(MODEL).id == MODEL
    error = expect_error(openai.NotFoundError, lambda: client().models.retrieve("no-such-model"))
    expect_openai_error(error)


@suite.check("asynchronous client: four calls at once")
def four_at_once():
    import asyncio

    async def all_of_them():
        async with openai.AsyncOpenAI(
            base_url=BASE_URL, api_key=API_KEY, max_retries=0, timeout=TIMEOUT_SECONDS
        ) as many:
            calls = [many.chat.completions.create(**ask(f"Say {n}.", max_tokens=8)) for n in range(4)]
            return await asyncio.gather(*calls)

    answers = asyncio.run(all_of_them())
    assert len({answer.id for answer in answers}) == 4


# Headers


@suite.check("x-request-id: readable, and a new one each time", gateway=True)
def request_id():
    seen = {client().chat.completions.create(**ask(max_tokens=1))._request_id for _ in range(2)}
    assert len(seen) == 2 and None not in seen, seen


@suite.check("x-ratelimit-*: limits and what is left of them", gateway=True)
def ratelimit_headers():
    def spend():
        answer = client().chat.completions.with_raw_response.create(**ask(max_tokens=4))
        found = {}
        for kind in ("requests", "tokens"):
            for what in ("limit", "remaining", "reset"):
                name = f"x-ratelimit-{what}-{kind}"
                assert name in answer.headers, f"no {name}"
                found[f"{what}-{kind}"] = answer.headers[name]
        return found, answer.parse().usage.total_tokens

    first, _ = spend()
    second, spent = spend()
    for kind in ("requests", "tokens"):
        limit, left = int(second[f"limit-{kind}"]), int(second[f"remaining-{kind}"])
        assert 0 <= left <= limit, f"{kind}: {left} left of {limit}"
    # A minute's calls come back one by one, while a call still runs. A token budget never grows by being used, and what
    # the call before cost is gone from it.
    gone = int(first["remaining-tokens"]) - int(second["remaining-tokens"])
    assert 0 < gone, f"{gone} tokens gone; the call cost {spent}"


# Refusals


@suite.check("wrong key: AuthenticationError, code and all", gateway=True)
def wrong_key():
    keys = [
        "rk_test_zzzzzzzzzzzz_00000000000000000000000000000000",  # well-formed, unknown
        API_KEY[:-1] + ("0" if API_KEY[-1] != "0" else "1"),  # the right name, another secret
        "sk-something-else",
    ]
    bodies = []
    for key in keys:
        error = expect_error(openai.AuthenticationError, lambda: client(key).chat.completions.create(**ask()))
        body = expect_openai_error(error)
        assert isinstance(body["code"], str) and body["code"]
        # litellm tells a wrong key from a bad request by one of these two.
        assert body["type"] == "authentication_error" or "Incorrect API key provided" in body["message"], body
        assert key not in error.response.text, "the answer repeats the key"
        bodies.append((body["type"], body["code"], body["message"]))
    assert len(set(bodies)) == 1, f"wrong keys can be told apart: {bodies}"


@suite.check("wrong key: one attempt, no retry")
def wrong_key_is_not_retried():
    impatient, attempts = counting_client("sk-wrong", retries=2)
    expect_error(openai.AuthenticationError, lambda: impatient.chat.completions.create(**ask()))
    assert len(attempts) == 1, attempts


@suite.check("unknown model: refused", gateway=True)
def unknown_model():
    error = expect_error(
        (openai.NotFoundError, openai.BadRequestError),
        lambda: client().chat.completions.create(**ask(model="no-such-model")),
    )
    assert isinstance(expect_openai_error(error)["code"], str)


@suite.check("unknown route: NotFoundError", gateway=True)
def unknown_route():
    error = expect_error(openai.NotFoundError, lambda: client().get("/nothing-here", cast_to=object))
    expect_openai_error(error)


@suite.check("bad JSON and bad fields: BadRequestError", gateway=True)
def bad_requests():
    raw = [b"{", b"", b"[]", b'"text"', b'{"model": ']
    for content in raw:
        error = expect_error(
            openai.BadRequestError,
            lambda: client().post(
                "/chat/completions",
                cast_to=object,
                content=content,
                options={"headers": {"content-type": "application/json"}},
            ),
        )
        expect_openai_error(error)
    for fields in ({"max_tokens": "many"}, {"stream": "yes"}, {"max_tokens": -1}, {"model": 7}, {"n": 0}):
        error = expect_error(
            openai.BadRequestError,
            lambda: client().chat.completions.create(**ask(extra_body=fields)),
        )
        expect_openai_error(error)


@suite.check("bad field that only the model knows: its 400 comes through")
def bad_field_upstream():
    error = expect_error(
        openai.BadRequestError,
        lambda: client().chat.completions.create(**ask(extra_body={"messages": "no list"})),
    )
    assert error.body and error.body.get("message")


@suite.check("too large: 413", gateway=True)
def too_large():
    error = expect_error(
        openai.APIStatusError,
        lambda: client().chat.completions.create(**ask("a" * TOO_LARGE_BYTES)),
    )
    assert error.status_code == 413, error.status_code
    expect_openai_error(error)


@suite.check("plan without API access: 403, one attempt", gateway=True)
def no_api_access():
    impatient, attempts = counting_client(need("RELAIS_KEY_NO_API"), retries=2)
    error = expect_error(openai.PermissionDeniedError, lambda: impatient.chat.completions.create(**ask()))
    assert expect_openai_error(error)["code"] == "feature_not_in_plan"
    assert len(attempts) == 1, attempts


def call_until_refused(patient: OpenAI, kind, calls_max: int):
    """Calls until an error of `kind`; gives it and how many calls went through before."""
    for done in range(calls_max):
        try:
            patient.chat.completions.create(**ask("Hi", max_tokens=1))
        except kind as error:
            return error, done
    raise AssertionError(f"not refused in {calls_max} calls")


@suite.check("rate limit: RateLimitError says when, and a retry then goes through", gateway=True)
def rate_limit():
    key = need("RELAIS_KEY_RATE")
    error, done = call_until_refused(client(key), openai.RateLimitError, calls_max=30)
    assert done > 0, "refused at once"
    assert isinstance(expect_openai_error(error)["code"], str)
    headers = error.response.headers
    seconds, milliseconds = int(headers["retry-after"]), int(headers["retry-after-ms"])
    assert 1 <= seconds <= 60, seconds
    assert (seconds - 1) * 1000 < milliseconds <= seconds * 1000, f"{milliseconds} ms against {seconds} s"
    assert headers.get("x-should-retry") != "false"
    # The client sleeps as long as it was told. If that was the truth, its next attempt is let in.
    patient, attempts = counting_client(key, retries=1)
    assert patient.chat.completions.create(**ask("Hi", max_tokens=1)).choices
    assert len(attempts) == 2, f"{len(attempts)} attempts"


@suite.check("monthly calls used up: 429 that is not retried", gateway=True)
def calls_used_up():
    key = need("RELAIS_KEY_CALLS")
    error, done = call_until_refused(client(key), openai.RateLimitError, calls_max=30)
    assert expect_openai_error(error)["code"] == "quota_exceeded", error.body
    assert done > 0, "refused at once"
    headers = error.response.headers
    assert headers["x-should-retry"] == "false"
    # The month's end is weeks away, and some clients sleep as long as they are told.
    assert "retry-after" not in headers and "retry-after-ms" not in headers
    patient, attempts = counting_client(key, retries=2)
    expect_error(openai.RateLimitError, lambda: patient.chat.completions.create(**ask()))
    assert len(attempts) == 1, f"{len(attempts)} attempts"


@suite.check("token budget used up: 402 that is not retried", gateway=True)
def tokens_used_up():
    key = need("RELAIS_KEY_TOKENS")
    error, done = call_until_refused(client(key), openai.APIStatusError, calls_max=60)
    assert error.status_code == 402, error.status_code
    assert done > 0, "refused at once"
    assert expect_openai_error(error)["code"] == "token_budget_exhausted"
    headers = error.response.headers
    assert headers["x-should-retry"] == "false"
    assert "retry-after" not in headers and "retry-after-ms" not in headers
    patient, attempts = counting_client(key, retries=2)
    expect_error(openai.APIStatusError, lambda: patient.chat.completions.create(**ask()))
    assert len(attempts) == 1, f"{len(attempts)} attempts"


# Leaving


@suite.check("a client that leaves its stream: the model stops, the next call works")
def leaving_early():
    upstream_idle.wait_until_idle()
    # Would go on for half a minute.
    long = ask("Tell a long story.", max_tokens=3500, extra_body={"ignore_eos": True})
    with client() as leaver:
        stream = leaver.chat.completions.create(**long, stream=True)
        received = [next(stream) for _ in range(4)]
        assert len(received) == 4
        assert upstream_idle.calls_in_work() == 1, "the model was through before anyone could leave"
        stream.close()
    upstream_idle.wait_until_idle()
    assert client().chat.completions.create(**ask()).choices[0].message.content


if __name__ == "__main__":
    try:
        suite.run(direct="--direct" in sys.argv[1:])
    except Skip as missing:
        sys.exit(str(missing))
