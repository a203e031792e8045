# What people and CI run. `make` lists it. Nothing here needs root.
# Every target builds into one target directory in one profile; `bench` alone uses the optimised one.

CARGO ?= cargo
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
BINARIES = $(CARGO) build --locked --bin relais --bin relais-load

.DEFAULT_GOAL := help
.PHONY: help run run-llm test test-real check bench

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

run: ## the main job, on embedded defaults: a conversation is answered before your eyes
	$(BINARIES)
	$(TARGET_DIR)/debug/relais-load demo

run-llm: ## the same before a real, small language model on this machine
	RELAIS_SKIPS=fatal loadtest/real/setup.sh python
	$(BINARIES)
	python3 loadtest/real/demo_llm.py

test: ## all tests, against our own fakes
	$(CARGO) test --workspace --locked

test-real: ## official clients, a real model, promtool, Prometheus, kill -9; says what it must skip
	loadtest/real/run.sh

check: ## format, lints, documentation
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS=-Dwarnings $(CARGO) doc --no-deps --workspace --locked

bench: ## the hot path's benches
	$(CARGO) bench -p relais-benches --locked
