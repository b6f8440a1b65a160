# The table of scripts/bench.sh from lines ROUND GROUP MODE CLIENTS NAME TPS CPU (for the group cold: milliseconds).
function key(group, mode, count, name) { return group SUBSEP mode SUBSEP count SUBSEP name }

function shown(target) {
  return target == "rowseal" ? "rowseal, unprotected" : target == "protected" ? "rowseal, protected" : target
}

function sorted(values, n,    i, j, t) {
  for (i = 2; i <= n; i++) {
    t = values[i]
    for (j = i - 1; j >= 1 && values[j] > t; j--) values[j + 1] = values[j]
    values[j + 1] = t
  }
}

function middle(values, n) { return n % 2 ? values[(n + 1) / 2] : (values[n / 2] + values[n / 2 + 1]) / 2 }

# The median over the rounds of one of the two figures.
function median(figure, k,    r, n, v) {
  for (r = 1; r <= rounds; r++) if ((figure, k, r) in seen) v[++n] = seen[figure, k, r]
  if (!n) return 0
  sorted(v, n)
  return middle(v, n)
}

# "median [smallest, largest]" of a figure (tps unless said) in relation to another case of the same round.
function ratio(k, base, figure,    r, n, v) {
  if (!figure) figure = 1
  for (r = 1; r <= rounds; r++)
    if ((figure, k, r) in seen && seen[figure, base, r] > 0) v[++n] = seen[figure, k, r] / seen[figure, base, r]
  if (!n) return "-"
  sorted(v, n)
  return sprintf("%.2f [%.2f, %.2f]", middle(v, n), v[1], v[n])
}

{
  k = key($2, $3, $4, $5)
  if (!(k in known)) { known[k] = 1; order[++cases] = k }
  seen[1, k, $1] = $6
  seen[2, k, $1] = $7
  if ($1 > rounds) rounds = $1
}

END {
  line = "%-9s %8s %7s  %-22s %9s %20s %20s %10s %20s\n"
  printf line, "case", "protocol", "clients", "target", "tps", "x direct", "x pgbouncer", "CPU µs/tx", "CPU x pgbouncer"
  for (i = 1; i <= cases; i++) {
    split(order[i], f, SUBSEP)
    if (f[1] != "hop") continue
    printf line, "select", f[2], f[3], shown(f[4]), sprintf("%.0f", median(1, order[i])),
      ratio(order[i], key("hop", f[2], f[3], "direct")), ratio(order[i], key("hop", f[2], f[3], "pgbouncer")),
      f[4] == "direct" ? "-" : sprintf("%.1f", median(2, order[i])),
      f[4] == "direct" ? "-" : ratio(order[i], key("hop", f[2], f[3], "pgbouncer"), 2)
  }
  line = "%-9s %8s %7s  %-22s %9s %20s %30s\n"
  title = 0
  for (i = 1; i <= cases; i++) {
    split(order[i], f, SUBSEP)
    if (f[1] != "read" && f[1] != "insert") continue
    if (!title++) { print ""; printf line, "case", "protocol", "clients", "column", "tps", "x pass-through", "CPU µs/tx" }
    name = f[4] == "plain" ? "plain, pass-through" : f[4] == "pgcrypto" ? "pgcrypto, no proxy" : f[4] == "sealed" ? "sealed" : "sealed, " f[4]
    printf line, f[1], f[2], f[3], name, sprintf("%.0f", median(1, order[i])), ratio(order[i], key(f[1], f[2], f[3], "plain")),
      f[4] == "pgcrypto" ? "-" : sprintf("%.1f", median(2, order[i]))
  }
  title = 0
  for (i = 1; i <= cases; i++) {
    split(order[i], f, SUBSEP)
    if (f[1] != "cold") continue
    if (!title++) printf "\n%-40s %8s\n", "first sealed read of a session", "ms"
    name = f[4]
    sub(/^cold-/, "proxy just started, ", name)
    sub(/^warm-/, "keys warm, ", name)
    printf "%-40s %8.2f\n", name, median(1, order[i])
  }
}
