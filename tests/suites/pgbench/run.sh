# pgbench: its own tables and transactions, and scripts of ours over sealed columns, in its three modes. Prints how many
# transactions were done and what the tables hold then.
set -u
cd "$SUITES_TMP"
here=$(dirname "$0")
pgbench --version | sed 's/.*) \([0-9.]*\).*/version \1/'
sql() { psql -XAtq -c "$1"; }
# What does not depend on how fast it went.
bench() { pgbench -n -j 2 --random-seed=7 "$@" 2>&1 | grep -E '^(pgbench: error|number of (transactions actually|failed)|transaction type|query mode)'; }

echo '== initialize'
pgbench -i -s 1 --quiet 2>&1 | grep -vE 'done in|tuples'
echo '== tables'
sql 'SELECT count(*), sum(abalance) FROM pgbench_accounts'
for mode in simple extended prepared; do
  echo "== tpc-b, $mode"
  bench -M $mode -c 1 -t 50
  sql 'SELECT sum(abalance) = sum(delta) FROM pgbench_accounts, (SELECT sum(delta) AS delta FROM pgbench_history) h GROUP BY h.delta'
  echo "== select only, $mode"
  bench -M $mode -c 4 -S -t 50
done
echo '== schema'
psql -Xq -f "$here/../shop.sql" 2>&1
# Simple mode puts a value into the text as it is; there it must be quoted.
script() {
  local quote=$1
  cat <<Q
\\set account random(1, 3)
\\set visits random(7000, 7999)
BEGIN;
INSERT INTO orders (account_id, customer_id, number, comment) VALUES (:account, 1, :client_id, $quote:comment$quote);
UPDATE customer SET visits = :visits, ssn = $quote:comment$quote WHERE account_id = 1 AND id = 1;
SELECT email, ssn, visits FROM customer WHERE account_id = 1 AND phone = $quote:phone$quote;
SELECT count(comment) FROM orders WHERE account_id = :account;
COMMIT;
Q
}
for mode in simple extended prepared; do
  quote=
  [ $mode = simple ] && quote="'"
  script "$quote" >mine.sql
  sql 'DELETE FROM orders WHERE number <> 99'
  echo "== sealed, $mode"
  bench -M $mode -c 4 -t 30 -D comment=canary7f3-$mode -D phone=canary7f3-1 -f mine.sql
  sql "SELECT count(comment), bool_and(comment IS NOT NULL) FROM orders"
  sql "SELECT comment FROM orders ORDER BY id LIMIT 1"
  sql "SELECT ssn FROM customer WHERE id = 1"
done
cat >pipe.sql <<'Q'
\startpipeline
SELECT email FROM customer WHERE account_id = 1 AND phone = :phone;
UPDATE customer SET ssn = :phone WHERE account_id = 1 AND id = 1;
SELECT ssn FROM customer WHERE id = 1;
INSERT INTO orders (account_id, customer_id, number, comment) VALUES (2, 1, 99, :phone);
\endpipeline
Q
for mode in extended prepared; do
  echo "== a pipeline, $mode"
  bench -M $mode -c 2 -t 20 -D phone=canary7f3-1 -f pipe.sql
  sql 'SELECT count(comment) FROM orders WHERE number = 99'
done
echo '== gset and conditions'
cat >gset.sql <<'Q'
SELECT id, visits FROM customer WHERE account_id = 1 AND phone = 'canary7f3-1' \gset c_
\if :c_visits > 0
UPDATE customer SET ssn = 'canary7f3-seen' WHERE account_id = 1 AND id = :c_id;
\endif
Q
bench -M simple -c 1 -t 5 -f gset.sql
sql 'SELECT ssn FROM customer WHERE id = 1'
