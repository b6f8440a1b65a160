#!/usr/bin/env bash
# What the rotation of a master key costs, in both modes of wrapping: first alone (time, rows a second, WAL), then while
# an application reads and updates the same rows through RowSeal (its latency before and meanwhile). Prints a table in
# Markdown. The key service is a keyring file: with a real one direct mode waits for a call for each row. Leaves nothing behind.
#
#   ROWS=1000000 scripts/bench-rotation.sh
#
# ROWSEAL_BIN names the binary (default target/release/rowseal); CLIENTS=4 is the application; DIRECT_ROWS, if not as many
# rows, those of direct mode; BASELINE=10 the seconds that the application is measured for before a rotation.
set -euo pipefail
cd "$(dirname "$0")/.."

rows=${ROWS:-1000000}
direct_rows=${DIRECT_ROWS:-$rows}
clients=${CLIENTS:-4}
baseline=${BASELINE:-10}
rowseal=${ROWSEAL_BIN:-target/release/rowseal}
. scripts/bench/common.sh
[ -x "$rowseal" ] || fail "no $rowseal: make bench-rotation builds it"
rowseal=$(readlink -f "$rowseal")

start_postgres
sql postgres "${port[direct]}" 'create database app'
configure email phone
register_tenants
start_rowseal || fail "RowSeal did not start"

on() { sql app "${port[direct]}" "$1"; }
seconds_since() { awk -v began="$1" -v now="$(date +%s%N)" 'BEGIN { printf "%.2f", (now - began) / 1e9 }'; }

# fill TENANT ROWS: a table with two sealed columns, filled through RowSeal and vacuumed.
fill() {
  say "filling $2 rows of tenant $1"
  on 'set client_min_messages = warning; drop table if exists vault'
  on 'create table vault (id int8 primary key, account_id int8 not null, email rowseal.text, phone rowseal.text)'
  on 'alter table vault alter email set storage external, alter phone set storage external'
  # Until the proxy has seen the table.
  local try
  for ((try = 0; try < 50; try++)); do
    awk -v n="$2" -v t="$1" 'BEGIN { OFS = "\t"; for (i = 1; i <= n; i++) print i, t, "user" i "@example.com", "+49 30 " i }' |
      psql -XAtq -v ON_ERROR_STOP=1 -h 127.0.0.1 -p "${port[rowseal]}" -d app -c '\copy vault from stdin' \
        >/dev/null 2>"$dir/fill.log" && break
    sleep 0.2
  done
  [ "$(on 'select count(*) from vault')" = "$2" ] || { cat "$dir/fill.log" >&2; fail "the table was not filled"; }
  on 'vacuum (freeze, analyze) vault'
}

# rotate TENANT: sets took and wal, a rotation's seconds and bytes of WAL.
rotate() {
  on checkpoint
  local from began
  from=$(on 'select pg_current_wal_lsn()')
  began=$(date +%s%N)
  "${pin[@]}" "$rowseal" key rotate "$1" --compromised --reason bench --config "$dir/rowseal.toml" >"$dir/rotate.log" 2>&1 ||
    { tail -n 5 "$dir/rotate.log" >&2; fail "the rotation failed"; }
  took=$(seconds_since "$began")
  wal=$(on "select pg_current_wal_lsn() - '$from'::pg_lsn")
}

# work LOG SECONDS: the application, each transaction's latency in files of that name.
work() {
  (cd "$dir" && pgbench -n -h 127.0.0.1 -p "${port[rowseal]}" -M simple -c "$clients" -j 1 -T "$2" -f "$dir/work.sql" \
    -l --log-prefix="$dir/$1" app >"$dir/pgbench.log" 2>&1) || { tail -n 5 "$dir/pgbench.log" >&2; fail "the application failed"; }
}

# quantile LOG UNTIL Q: milliseconds, of transactions that ended until then (seconds of the epoch).
quantile() {
  cat "$dir"/$1.* | awk -v until="$2" '$5 <= until { print $3 }' | sort -n |
    awk -v q="$3" '{ all[NR] = $1 } END { at = int(NR * q); if (at < 1) at = 1; printf NR ? "%.1f" : "-", all[at] / 1000 }'
}

# per_second COUNT SECONDS
per_second() { awk -v n="$1" -v s="$2" 'BEGIN { printf "%.0f", n / s }'; }

table=$dir/table
# measure WRAPPING TENANT ROWS
measure() {
  local alone alone_wal during until background
  fill "$2" "$3"
  say "$1: a rotation alone"
  rotate "$2"
  alone=$took alone_wal=$wal
  on 'vacuum (freeze, analyze) vault'
  cat >"$dir/work.sql" <<SQL
\\set id random(1, $3)
select email from vault where account_id = $2 and id = :id;
update vault set phone = '+49 30 x:id' where account_id = $2 and id = :id;
SQL
  say "$1: the application alone, then during a rotation"
  work "before-$1" "$baseline"
  rm -f "$dir/over"
  { n=0; until [ -e "$dir/over" ]; do n=$((n + 1)); work "during-$1-$n" 5; done; } &
  background=$!
  sleep 1
  rotate "$2"
  during=$took until=$(date +%s)
  touch "$dir/over"
  wait "$background" || fail "the application failed"
  printf '| %s | %s | %s | %s | %s | %s | %s | %s | %s / %s | %s / %s |\n' "$1" "$3" "$alone" "$(per_second "$3" "$alone")" \
    "$((alone_wal / 1048576))" "$((alone_wal / $3))" "$during" "$(per_second "$3" "$during")" \
    "$(quantile "before-$1" 9999999999 0.5)" "$(quantile "during-$1-*" "$until" 0.5)" \
    "$(quantile "before-$1" 9999999999 0.99)" "$(quantile "during-$1-*" "$until" 0.99)" >>"$table"
}

measure hierarchical 2 "$rows"
measure direct 1 "$direct_rows"

cat <<HEAD
| wrapping | rows | s alone | rows/s | WAL MiB | WAL bytes a row | s under load | rows/s | median ms before / during | p99 ms before / during |
|---|---|---|---|---|---|---|---|---|---|
HEAD
cat "$table"
