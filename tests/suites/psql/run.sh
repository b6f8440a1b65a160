# psql: its own commands over sealed columns. Prints a line `== step` and what psql prints.
set -u
cd "$SUITES_TMP"
here=$(dirname "$0")
psql --version | sed 's/.*) \([0-9.]*\).*/version \1/'

# step NAME: runs the script on standard input.
step() {
  echo "== $1"
  # Of a description the type of a column and the name of an index are the database's own business.
  psql -X -f - 2>&1 | sed 's/^psql:<stdin>:[0-9]*: //; s/PID [0-9]*/PID/'
}

grep -hv '^.ir' "$here/../schema.sql" "$here/../shop.sql" | step schema
step 'describe a plain table' <<'Q'
\d account
\dt
Q
step 'describe the sealed table' <<'Q'
\d customer
Q
step 'describe the sealed table further' <<'Q'
\d+ orders
Q
step lists <<'Q'
\di *pkey
\ds
\df nothing*
\dn public

Q
step select <<'Q'
SELECT * FROM customer ORDER BY id;
TABLE account;
Q
step TABLE <<'Q'
TABLE orders;
Q
step expanded <<'Q'
\x on
SELECT * FROM customer WHERE id = 1 \g
\x auto
\pset null '(null)'
SELECT email, ssn, birth FROM customer ORDER BY id;
Q
step formats <<'Q'
\pset format csv
SELECT email, ssn, balance FROM customer ORDER BY id;
\pset format html
SELECT email FROM customer WHERE id = 1;
\pset format unaligned
\pset fieldsep ' | '
SELECT email, extra FROM customer ORDER BY id;
Q
step gdesc <<'Q'
SELECT id, email, phone, birth, balance, joined, extra FROM customer \gdesc
SELECT count(email), array_agg(email), json_agg(email) FROM customer WHERE account_id = 1 \gdesc
Q
step gset <<'Q'
SELECT email AS mail, id FROM customer WHERE id = 1 \gset found_
\echo :found_mail :found_id
SELECT name FROM customer WHERE account_id = 1 AND email = :'found_mail';
\if :{?found_mail}
\echo set
\endif
Q
step gexec <<'Q'
SELECT format('SELECT email FROM customer WHERE id = %s', id) FROM customer ORDER BY id \gexec
Q
step 'to a file and a program' <<'Q'
SELECT email FROM customer ORDER BY id \g (format=csv) out.csv
\! cat out.csv
\o | sort -r
SELECT email FROM customer ORDER BY id;
\o
Q
step crosstabview <<'Q'
SELECT account_id, rank, email FROM customer ORDER BY 1, 2 \crosstabview
SELECT account_id, email, rank FROM customer ORDER BY rank \crosstabview
Q
echo '== watch'
(echo 'SELECT email FROM customer WHERE id = 1 \\watch 0.2'; sleep 4) | timeout -s INT 3 psql -X -At 2>&1 | grep canary | head -2
step 'copy out' <<'Q'
\copy customer (name, email, ssn, birth, extra) TO 'customer.tsv'
\! sort customer.tsv
\copy (SELECT name, email, ssn FROM customer ORDER BY id) TO 'customer.csv' WITH (FORMAT csv, HEADER, FORCE_QUOTE *)
\! cat customer.csv
\copy (SELECT email FROM customer ORDER BY id) TO STDOUT
Q
step 'copy in' <<'Q'
\copy customer (account_id, name, email, phone, birth) FROM STDIN
1	copied	canary7f3-copied@example.com	\N	2020-01-02
2	copied	canary7f3-copied@example.com	canary7f3-9	\N
\.
\copy customer (account_id, name, email, ssn) FROM PROGRAM 'printf "3,copied,canary7f3-csv@example.com,\"canary7f3, x\"\n"' WITH (FORMAT csv)
SELECT name, email, ssn, birth FROM customer WHERE name = 'copied' ORDER BY id;
Q
step 'copy in, twice' <<'Q'
COPY customer (account_id, name, email) FROM STDIN;
1	twice	canary7f3-ada@example.com
\.
Q
step 'variables' <<'Q'
\set who 'canary7f3-bob@example.com'
SELECT name FROM customer WHERE account_id = 1 AND email = :'who';
UPDATE customer SET ssn = :'who' WHERE account_id = 1 AND email = :'who' RETURNING name, ssn;
\echo :ROW_COUNT :SQLSTATE :ERROR
Q
step 'transactions' <<'Q'
\set ON_ERROR_ROLLBACK on
BEGIN;
UPDATE customer SET ssn = 'canary7f3-tx' WHERE account_id = 1 AND id = 1;
SELECT 1 / 0;
SELECT ssn FROM customer WHERE id = 1;
ROLLBACK;
SELECT ssn FROM customer WHERE id = 1;
Q
step 'single transaction' <<'Q'
\set ON_ERROR_STOP on
BEGIN;
SELECT email FROM customer WHERE id = 1 FOR UPDATE;
COMMIT;
SELECT 1 / 0;
SELECT 'never';
Q
step 'fetch count' <<'Q'
\set FETCH_COUNT 2
SELECT id, email FROM customer ORDER BY id;
Q
step 'refused' <<'Q'
SELECT name FROM customer WHERE email LIKE 'canary%';
Q
step 'an unknown column' <<'Q'
SELECT nothing FROM customer;
SELECT email, nothing FROM customer;
Q
step 'a syntax error' <<'Q'
SELECT email FROM customer WHERE;
Q
step 'a failing row' <<'Q'
INSERT INTO customer (account_id, name, email) VALUES (1, NULL, 'canary7f3');
\errverbose
Q
step 'do' <<'Q'
DO $$ BEGIN PERFORM 1; RAISE NOTICE 'done'; END $$;
LISTEN things;
NOTIFY things, 'payload';
SELECT pg_backend_pid() > 0;
\encoding
SHOW search_path;
Q
