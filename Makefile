# BlockHost: every target says what it does. `make` alone lists them.
# All of them want root (system users, namespaces, the agent itself) and Rust; `make setup` brings the rest.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:

# rustup's default place, for shells that do not have it in PATH (a bare `sudo make`).
export PATH := $(PATH):$(HOME)/.cargo/bin
CARGO ?= cargo
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
DEMO_ARGS ?=
BENCH_ARGS ?=
FUZZ_SECONDS ?= 60
MUTANTS_ARGS ?=
# Most tests wait for something: a chain, a boot, a timer.
export RUST_TEST_THREADS ?= $(shell echo $$((2 * $$(nproc))))

.PHONY: help setup check test attack demo bench bench-chain bench-create bench-metrics bench-machines bench-ledger anomalies deb docs clients fuzz mutants clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile

setup: ## install what is needed from Debian and npm, create the system users (idempotent)
	@bash scripts/setup.sh

check: ## formatting and lints only
	@echo "== formatting"
	@$(CARGO) fmt --all --check
	@echo "== clippy"
	@$(CARGO) clippy --workspace --all-targets --quiet -- -D warnings

test: check ## formatting, lints, unit, property, integration and end-to-end tests
	@echo "== building the programs that the end-to-end tests start"
	@$(CARGO) build --workspace --bins
	@echo "== tests"
	@$(CARGO) test --workspace

attack: ## the long form of the attacks: every process killed at every step, a million requests
	@echo "== attacks (long)"
	@BLOCKHOST_ATTACK=long $(CARGO) test -p blockhost-root-agent \
		--test crash_points --test escape_attempts --test load_clients --test swap_links

demo: setup ## a paid subscription becomes a running machine, for real, in a private world
	@echo "== building (release)" >&2
	@$(CARGO) build --release --workspace --bins --exclude blockhost-packaging
	@$(TARGET_DIR)/release/blockhost-demo $(DEMO_ARGS)

bench: ## our agent beside Python, varlink, D-Bus, oslo.privsep, sudo: latencies, memory, start, with ratios
	@bash scripts/setup.sh peers
	@echo "== building (release)" >&2
	@$(CARGO) build --release --bins -p blockhost-tests -p blockhost-root-agent -p blockhost-hypervisor -p blockhost-engine
	@$(TARGET_DIR)/release/blockhost-bench $(BENCH_ARGS)
	@$(MAKE) --no-print-directory bench-chain
	@$(MAKE) --no-print-directory bench-create
	@$(MAKE) --no-print-directory bench-metrics
	@$(MAKE) --no-print-directory bench-machines
	@$(MAKE) --no-print-directory bench-ledger

bench-chain: ## the engine and its chain: 10 000 events of the past, 1 000 subscriptions in one block
	@echo "== building (release)" >&2
	@$(CARGO) build --release --bins -p blockhost-tests -p blockhost-root-agent -p blockhost-hypervisor -p blockhost-engine -p blockhost-provisioner
	@$(TARGET_DIR)/release/blockhost-bench --chain $(BENCH_ARGS)

bench-create: ## a machine by the whole way beside QEMU alone on the same disk
	@echo "== building (release)" >&2
	@$(CARGO) build --release --bins -p blockhost-tests -p blockhost-root-agent -p blockhost-hypervisor -p blockhost-provisioner
	@$(TARGET_DIR)/release/blockhost-bench --create $(BENCH_ARGS)

bench-metrics: ## the counters of a hundred machines that run
	@echo "== building (release)" >&2
	@$(CARGO) build --release --bins -p blockhost-tests -p blockhost-root-agent -p blockhost-hypervisor
	@$(TARGET_DIR)/release/blockhost-bench --metrics $(BENCH_ARGS)

bench-machines: ## the machines' databases: garbage collection over 100 000 records, allocation among 1 000 machines
	@echo "== building (release)" >&2
	@$(CARGO) bench --quiet -p blockhost-gc --bench machines

bench-ledger: ## the ledger beside append+fdatasync, journald, SQLite, ct-merkle: rates, syncs, sizes
	@echo "== building (release)" >&2
	@$(CARGO) bench --quiet -p blockhost-ledger --features cli --bench ledger

anomalies: ## how good `blockhost ledger anomalies` is: precision and recall beside two peers, on ten made-up hosts
	@$(CARGO) test --release --quiet -p blockhost-ledger --test anomalies -- --ignored --nocapture

deb: ## Debian packages in target/deb, checked
	@bash packaging/build-deb.sh

docs: ## regenerate docs/protocol.md, man pages and completions from the programs themselves
	@$(CARGO) run --quiet -p blockhost-packaging --bin blockhost-docs -- --protocol docs/protocol.md --out $(TARGET_DIR)/docs

clients: ## regenerate proto/clients (Python, TypeScript) from the catalog
	@$(CARGO) run --quiet -p blockhost-packaging --bin blockhost-docs -- --clients proto/clients

fuzz: ## libFuzzer over every parser of bytes from outside, FUZZ_SECONDS (60) each
	@sh fuzz/run -s $(FUZZ_SECONDS)

mutants: ## change the rules one by one and see whether a test notices (hours; see docs/mutants.md)
	@bash scripts/mutants.sh $(MUTANTS_ARGS)

clean: ## remove build products (not the demo's world)
	@$(CARGO) clean
	@rm -rf fuzz/target
