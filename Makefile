# What people and CI run. `make` lists it. Nothing here needs root.
# Every target builds into one target directory in one profile; the benches alone use the optimised one.

CARGO ?= cargo
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)

.DEFAULT_GOAL := help
.PHONY: help binaries run run-llm test test-real check bench bench-instructions bench-intake bench-turns

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 28

# The smallest test comes with the programs: without a test in it cargo builds every dependency a second time, with
# fewer features than `make test` has them.
binaries:
	$(CARGO) build --locked --bin relais --bin relais-load --bin relais-billing --test tidy

run: binaries ## the main job, on embedded defaults: a conversation is answered before your eyes, then a page to try it
	$(TARGET_DIR)/debug/relais-load demo

run-llm: ## the same before a real, small language model on this machine
	RELAIS_SKIPS=fatal loadtest/real/setup.sh python
	$(MAKE) --no-print-directory binaries
	python3 loadtest/real/demo_llm.py

test: ## all tests, against our own fakes
	$(CARGO) test --workspace --locked

test-real: ## official clients, a real model, a browser, promtool, Prometheus, kill -9; says what it must skip
	loadtest/real/run.sh

check: ## format, lints, documentation
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS=-Dwarnings $(CARGO) doc --no-deps --workspace --locked

bench: ## the hot path's benches
	$(CARGO) bench -p relais-benches --bench hot_path --locked

bench-instructions: ## the same pieces in instructions, which no busy machine changes (needs valgrind)
	binary=$$($(CARGO) bench -p relais-benches --bench instructions --locked --no-run --message-format json \
		| python3 -c 'import json, sys; print(*[part["executable"] for part in map(json.loads, sys.stdin) if part.get("executable")])'); \
	python3 benches/instructions.py "$$binary"

RELEASE = $(CARGO) build --release --locked --bin relais --bin relais-load

bench-intake: ## deliveries made durable: latency at 5,000 a second beside the disk's own
	$(RELEASE)
	RELAIS_BIN_DIR=$(TARGET_DIR)/release python3 benches/conversations.py intake

bench-turns: ## a turn's CPU, and the memory of 10,000 conversations at once
	$(RELEASE)
	RELAIS_BIN_DIR=$(TARGET_DIR)/release python3 benches/conversations.py turns
	RELAIS_BIN_DIR=$(TARGET_DIR)/release python3 benches/conversations.py flight --http2
	RELAIS_BIN_DIR=$(TARGET_DIR)/release python3 benches/conversations.py flight
