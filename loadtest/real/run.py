"""Runs every check against real counterparts and prints one table. Called by run.sh.

The gateway is the binary that cargo built; the model, the clients, promtool and Prometheus are
real; Chatwoot, which cannot be run here, is our fake as a process of its own. What is missing is a
SKIP with its reason, and an error where RELAIS_SKIPS=fatal.

    run.py [SUITE …]       the suites are SUITES below
"""

import os
import pathlib
import re
import secrets
import shutil
import subprocess
import sys
import time

import gateway_config
import processes
from processes import CACHE, LOGS, VENV_PYTHON, binary

HERE = pathlib.Path(__file__).resolve().parent
RESULTS = CACHE / "results.tsv"
# What the checks send as prompts and messages: pieces that no log may show. Each is in a check.
PHRASES = [
    *("Tell me about cats", "I love this shop", "What is the weather in", "Tell a long story"),
    *("Which teas do you sell", "I want to talk to a human", "when do you open", "in the afternoon"),
    "Tell me all about your teas",
    "small tea shop",  # the agent's own prompt
]
# A suite that hangs is a failure, not the end of the night.
SUITE_SECONDS = 600

MODEL_SUITES = ["openai-python", "comply", "openai-node", "chatwoot", "page-llm", "metrics", "operate"]
SUITES = [*MODEL_SUITES, "chatwoot-sdk", "openapi", "billing", "page", "kill9", "crash", "faults", "privacy"]


def row(suite: str, check: str, outcome: str, detail: str = "") -> None:
    with open(RESULTS, "a", encoding="utf-8") as file:
        file.write(f"{suite}\t{check}\t{outcome}\t{' '.join(detail.split())[:200]}\n")


def skip_reason(part: str) -> str:
    """Why setup.sh could not provide a part; empty if it did."""
    path = CACHE / "skips" / part
    return path.read_text(encoding="utf-8").strip() if path.exists() else ""


def run_suite(name: str, command: list, env: dict[str, str]) -> None:
    """One script, its lines on the terminal and in a log. A script that breaks has a row too."""
    print(f"\n== {name}", flush=True)
    before = RESULTS.read_text().count("\n") if RESULTS.exists() else 0
    log = LOGS / f"{name}.log"
    started = time.monotonic()
    with open(log, "wb") as file:
        try:
            code = subprocess.run(
                [str(part) for part in command],
                env=os.environ | {"RELAIS_RESULTS": str(RESULTS), "PYTHONUNBUFFERED": "1"} | env,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                timeout=SUITE_SECONDS,
                cwd=HERE,
            ).returncode
            trouble = f"exit code {code}" if code else ""
        except subprocess.TimeoutExpired:
            trouble = f"not done after {SUITE_SECONDS} s"
    print(log.read_text(encoding="utf-8", errors="replace"), end="", flush=True)
    print(f"   {time.monotonic() - started:.0f} s", flush=True)
    rows = RESULTS.read_text().splitlines()[before:] if RESULTS.exists() else []
    explained = any(line.split("\t")[2] != "PASS" for line in rows)
    if not rows or (trouble and not explained):
        row(name, "(the script itself)", "FAIL", trouble or "it reported nothing")


def suites_with_the_model(wanted: list[str]) -> None:
    """A gateway before the real model and a fake Chatwoot: the clients, a conversation, the metrics."""
    reason = skip_reason("python")
    if reason:
        for name in wanted:
            row(name, "(all)", "SKIP", reason)
        return

    directory = CACHE / "gateway"
    shutil.rmtree(directory, ignore_errors=True)
    public, admin, chatwoot = processes.free_ports(3)
    model_key = secrets.token_hex(16)
    with processes.children() as start:
        model_address = processes.start_model(start, model_key)
        gateway = gateway_config.Gateway(
            directory=directory,
            public_port=public,
            admin_port=admin,
            upstream_address=model_address,
            upstream_key=model_key,
            upstream_models=[gateway_config.MODEL],
            agent_model=gateway_config.MODEL,
            chatwoot_port=chatwoot,
        )
        gateway.write()
        gateway_process = gateway.start(start)
        gateway.start_chatwoot(start)

        model = {"RELAIS_MODEL_ADDRESS": model_address, "RELAIS_MODEL_KEY": model_key}
        if "openai-python" in wanted:
            run_suite("openai-python", [VENV_PYTHON, "sdk_python.py"], gateway.environment("python") | model)
        if "comply" in wanted:
            # After openai-python, with whose rows it compares the same run without the gateway.
            run_suite("comply", [VENV_PYTHON, "comply.py"], gateway.environment("python") | model)
        if "openai-node" in wanted and skip_reason("node"):
            row("openai-node", "(all)", "SKIP", skip_reason("node"))
        elif "openai-node" in wanted:
            run_suite("openai-node", ["node", "sdk_node.mjs"], gateway.environment("node") | model)
        if "chatwoot" in wanted:
            control = {"RELAIS_CHATWOOT_ADDRESS": gateway.chatwoot_address}
            run_suite("chatwoot", [sys.executable, "chatwoot_conversation.py"], model | control)
        if "page-llm" in wanted:
            flags = ["--llm", f"{model_address}/v1", "--model", gateway_config.MODEL]
            page_suite("page-llm", flags, {"RELAIS_DEMO_LLM_KEY": model_key})
        if "metrics" in wanted:
            seen = {
                "RELAIS_ADMIN_URL": gateway.admin,
                "RELAIS_SECRETS_FILE": str(gateway.secrets_file()),
                "RELAIS_TENANTS": ",".join(gateway.tenants()),
            }
            run_suite("metrics", [sys.executable, "metrics_check.py"], seen)
        if "operate" in wanted:
            run_suite("operate", [VENV_PYTHON, "operate_check.py"], {"RELAIS_ADMIN_URL": gateway.admin})

        code = gateway_process.stop()
        row("gateway", "stops cleanly on SIGTERM", "PASS" if code == 0 else "FAIL", f"exit code {code}")


def page_suite(name: str, flags: list, env: dict[str, str]) -> None:
    """`make run`, or `make run-llm`, as a person sees it: the demo stays, and a browser uses its page."""
    reason = skip_reason("node") or skip_reason("chromium")
    if reason:
        row(name, "(all)", "SKIP", reason)
        return
    with processes.children() as start:
        demo = start(f"{name}-demo", [binary("relais-load"), "demo", *flags], env=env)
        printed = re.compile(r"http://[0-9.:]+/demo")

        def address() -> str:
            found = printed.search(demo.log.read_text(encoding="utf-8", errors="replace"))
            return found.group() if found else ""

        demo.wait_ready(address, "the demo prints its page's address")
        run_suite(name, ["node", "page.mjs"], {"RELAIS_PAGE_URL": address(), "RELAIS_PAGE_SUITE": name})
        code = demo.stop()
        row(name, "the demo stops cleanly on SIGTERM", "PASS" if code == 0 else "FAIL", f"exit code {code}")


def table() -> int:
    """Prints all rows and the plain closing line; gives the exit code."""
    rows = [line.split("\t") for line in RESULTS.read_text(encoding="utf-8").splitlines()]
    width = max(len(check) for _, check, _, _ in rows)
    print("\n== what came of it")
    for suite, check, outcome, detail in rows:
        print(f"{outcome:4}  {suite:14} {check:{width}}  {detail if outcome != 'PASS' else ''}".rstrip())
    count = {kind: sum(outcome == kind for _, _, outcome, _ in rows) for kind in ("PASS", "FAIL", "SKIP")}
    for suite, _, outcome, detail in rows:
        if outcome == "SKIP":
            print(f"SKIPPED for want of something: {suite}: {detail}", file=sys.stderr)
    print(f"\nlogs: {LOGS}")
    print(f"{count['PASS']} passed, {count['FAIL']} failed, {count['SKIP']} skipped", flush=True)
    fatal = os.environ.get("RELAIS_SKIPS") == "fatal"
    return 1 if count["FAIL"] or not count["PASS"] or (fatal and count["SKIP"]) else 0


def main() -> None:
    processes.end_on_signals()
    wanted = sys.argv[1:] or SUITES
    unknown = set(wanted) - set(SUITES)
    if unknown:
        sys.exit(f"Unknown: {', '.join(sorted(unknown))}. Suites: {', '.join(SUITES)}.")
    LOGS.mkdir(parents=True, exist_ok=True)
    for old in [*LOGS.glob("*.log"), RESULTS]:
        if not old.name.startswith("setup-"):
            old.unlink(missing_ok=True)
    for name in ("relais", "relais-load"):
        if not binary(name).exists():
            sys.exit(f"No {name} at {binary(name)}: cargo build comes first.")

    with_model = [name for name in MODEL_SUITES if name in wanted]
    try:
        if with_model:
            suites_with_the_model(with_model)
    except AssertionError as error:  # a program did not come up
        row("start", "the model, the gateway and the fake Chatwoot come up", "FAIL", str(error))
    if "chatwoot-sdk" in wanted and skip_reason("python"):
        row("chatwoot-sdk", "(all)", "SKIP", skip_reason("python"))
    elif "chatwoot-sdk" in wanted:
        run_suite("chatwoot-sdk", [VENV_PYTHON, "chatwoot_sdk.py"], {})
    if "openapi" in wanted and skip_reason("python"):
        row("openapi", "(all)", "SKIP", skip_reason("python"))
    elif "openapi" in wanted:
        run_suite("openapi", [sys.executable, "openapi_check.py"], {})
    if "billing" in wanted:
        run_suite("billing", [sys.executable, "billing_postgres.py"], {})
    if "page" in wanted:
        try:
            page_suite("page", [], {})
        except AssertionError as error:  # the demo did not come up
            row("page", "(all)", "FAIL", str(error))
    if "kill9" in wanted:
        run_suite("kill9", [sys.executable, "kill9.py"], {})
    if "crash" in wanted:
        run_suite("crash", [sys.executable, "crash.py"], {})
    if "faults" in wanted:
        run_suite("faults", [sys.executable, "faults.py"], {})
    if "privacy" in wanted:
        phrases = CACHE / "phrases.txt"
        phrases.write_text("\n".join(PHRASES) + "\n", encoding="utf-8")
        known = [CACHE / name / "secrets.txt" for name in ("gateway", "kill9", "crash", "faults", "openapi")]
        every_secret = CACHE / "secrets.txt"
        every_secret.touch(mode=0o600)
        every_secret.write_text("".join(path.read_text() for path in known if path.exists()))
        places = {
            "RELAIS_LOG_FILES": os.pathsep.join(str(path) for path in sorted(LOGS.glob("gateway*.log"))),
            "RELAIS_SECRETS_FILE": str(every_secret),
            "RELAIS_PHRASES_FILE": str(phrases),
        }
        run_suite("privacy", [sys.executable, "privacy_check.py"], places)
    sys.exit(table())


if __name__ == "__main__":
    main()
