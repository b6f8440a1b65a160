#!/usr/bin/env bash
# What large amounts cost: COPY in, COPY out and SELECT of many rows with two sealed columns, beside the same rows unsealed
# directly and through RowSeal's pass-through, and beside the cells themselves copied directly in binary, without a proxy, which
# is what the server alone can do. Ratios are made within a round; printed are the medians over the rounds.
# Leaves nothing behind.
#
#   scripts/bench-bulk.sh [ROWS] [ROUNDS]     default 1,000,000 rows, 3 rounds
#
# ROWSEAL_BIN names the binary (default target/release/rowseal); BENCH_CPU=0 pins everything to one core.
set -euo pipefail
cd "$(dirname "$0")/.."

rows=${1:-1000000}
rounds=${2:-3}
rowseal=${ROWSEAL_BIN:-target/release/rowseal}
. scripts/bench/common.sh
[ -x "$rowseal" ] || fail "no $rowseal: make bench builds it"
rowseal=$(readlink -f "$rowseal")

start_postgres
sql postgres "${port[direct]}" 'create database app'
configure email phone
register_tenants
for table in vault:rowseal.text plain:text; do
  sql app "${port[direct]}" "create unlogged table ${table%:*} (id int8 not null, account_id int8 not null,
    email ${table#*:}, phone ${table#*:})"
done
start_rowseal || fail "RowSeal did not start"

# data FILE ROWS TENANT
data() { awk -v n="$2" -v t="$3" 'BEGIN { OFS = "\t"; for (i = 1; i <= n; i++) print i, t, "user" i "@example.com", "+49 30 " i }' >"$1"; }
data "$dir/hierarchical" "$rows" 2
data "$dir/direct" $((rows / 10)) 1

results=$dir/results
# measure ROUND CASE TARGET ROWS COMMAND...: seconds of the command and processor seconds of the proxy in it.
measure() {
  local before after began ended round=$1 case=$2 target=$3 count=$4
  shift 4
  before=$(ticks "${pid[rowseal]}")
  began=$(date +%s%N)
  "${pin[@]}" "$@" >/dev/null 2>"$dir/command.log" || { cat "$dir/command.log" >&2; fail "$case failed on $target"; }
  ended=$(date +%s%N)
  after=$(ticks "${pid[rowseal]}")
  awk -v r="$round" -v c="$case" -v t="$target" -v n="$count" -v ns=$((ended - began)) -v ticks=$((after - before)) \
    -v hz="$(getconf CLK_TCK)" 'BEGIN { print r, c, t, n, ns / 1e9, ticks / hz }' >>"$results"
}

# through TARGET SQL...: psql on a target's port.
through() {
  local on=$1
  shift
  psql -XAtq -v ON_ERROR_STOP=1 -h 127.0.0.1 -p "${port[$on]}" -d app "$@"
}
copy_in() { through "$1" -c "\\copy $2 from '$dir/$3'"; }
copy_out() { through "$1" -c "\\copy $2 to '/dev/null'"; }
# The cells as they are, in binary.
cells_in() { through direct -c "\\copy vault from '$dir/cells' (format binary)"; }
cells_out() { through direct -c "\\copy vault to '/dev/null' (format binary)"; }
# A cursor, so that psql does not keep all rows.
select_all() { through "$1" -v FETCH_COUNT=5000 -c "select id, email, phone from $2"; }

resident() { awk -v field="$1:" '$1 == field { print $2 }' "/proc/${pid[rowseal]}/status"; }
resident_before=$(resident VmRSS)
for ((round = 1; round <= rounds; round++)); do
  say "round $round of $rounds"
  for case in direct:plain rowseal:plain rowseal:vault; do
    target=${case%:*}
    table=${case#*:}
    name=$target-$table
    sql app "${port[direct]}" "truncate $table"
    measure "$round" copy-in "$name" "$rows" copy_in "$target" "$table" hierarchical
    measure "$round" copy-out "$name" "$rows" copy_out "$target" "$table"
    measure "$round" select "$name" "$rows" select_all "$target" "$table"
    if [ "$name" = rowseal-vault ]; then
      through direct -c "\\copy vault to '$dir/cells' (format binary)"
      sql app "${port[direct]}" "truncate vault"
      measure "$round" copy-in direct-cells-as-they-are "$rows" cells_in
      measure "$round" copy-out direct-cells-as-they-are "$rows" cells_out
      rm "$dir/cells"
    fi
    sql app "${port[direct]}" "truncate $table"
    measure "$round" copy-in-direct-keys "$name" $((rows / 10)) copy_in "$target" "$table" direct
    measure "$round" copy-out-direct-keys "$name" $((rows / 10)) copy_out "$target" "$table"
  done
done

awk '
  function median(list,   n, i, j, sorted, swap) {
    n = split(list, sorted, " ")
    for (i = 1; i <= n; i++) for (j = i + 1; j <= n; j++) if (sorted[i] + 0 > sorted[j] + 0) { swap = sorted[i]; sorted[i] = sorted[j]; sorted[j] = swap }
    return n % 2 ? sorted[(n + 1) / 2] : (sorted[n / 2] + sorted[n / 2 + 1]) / 2
  }
  {
    key = $2 " " $3
    if (!(key in seen)) { seen[key]; order[++kinds] = key }
    rate[key] = rate[key] " " $4 / $5
    if ($3 == "direct-plain") base[$1, $2] = $4 / $5
    ratio[key] = ratio[key] " " ($4 / $5) / base[$1, $2]
    if ($6 > 0) cells[key] = cells[key] " " 2 * $4 / $6
  }
  END {
    printf "%-22s %-24s %12s %10s %22s\n", "case", "target", "rows/s", "x direct", "cells/s of proxy CPU"
    for (i = 1; i <= kinds; i++) {
      split(order[i], part, " ")
      printf "%-22s %-24s %12.0f %10.2f %22s\n", part[1], part[2], median(rate[order[i]]), median(ratio[order[i]]), \
        (part[2] ~ /vault/ ? sprintf("%.0f", median(cells[order[i]])) : "-")
    }
  }' "$results"
echo
echo "resident memory of the proxy: $((resident_before / 1024)) MiB before, $(($(resident VmHWM) / 1024)) MiB at most"
