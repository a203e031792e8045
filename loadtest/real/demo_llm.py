"""`make run-llm`: the demo with its answers from a real, small language model on this machine.

Starts the local model, hands its address to `relais-load demo`, and ends it with the demo.
Arguments go to the demo (`--once` ends after the conversation).
"""

import os
import secrets
import subprocess
import sys

import gateway_config
import processes


def main() -> None:
    processes.end_on_signals()
    key = secrets.token_hex(16)
    with processes.children() as start:
        print("Starting the local model (a few seconds).", flush=True)
        address = processes.start_model(start, key)
        demo = [processes.binary("relais-load"), "demo", "--llm", f"{address}/v1"]
        demo += ["--model", gateway_config.MODEL, *sys.argv[1:]]
        running = subprocess.Popen([str(part) for part in demo], env=os.environ | {"RELAIS_DEMO_LLM_KEY": key})
        while True:
            try:
                code = running.wait()
                break
            except KeyboardInterrupt:
                # The terminal has told the demo too; it says goodbye in its own time.
                continue
            except SystemExit:
                running.terminate()
                running.wait()
                raise
    sys.exit(code)


if __name__ == "__main__":
    main()
