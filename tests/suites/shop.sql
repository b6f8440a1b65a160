\ir schema.sql
INSERT INTO account (name) VALUES ('one'), ('two'), ('three');
INSERT INTO customer (account_id, name, rank, email, phone, ssn, birth, balance, visits, joined, extra) VALUES
  (1, 'ada', 1, 'canary7f3-ada@example.com', 'canary7f3-1', 'canary7f3-ssn', '1815-12-10', 12.5, 7301, '2024-02-29 12:00+00', '{"canary7f3": 1}'),
  (1, 'bob', 2, 'canary7f3-bob@example.com', 'canary7f3-2', E'canary7f3-two\nlines', NULL, NULL, 7302, NULL, NULL),
  (2, 'cy', 3, 'canary7f3-cy@example.com', NULL, '', '2001-02-03', 0, NULL, '2024-03-01 00:00+02', '[]'),
  (3, 'dee', 4, 'canary7f3-dee@example.com', 'canary7f3-2', 'canary7f3 "quoted", \back', '2001-02-03', -1.25, 7301, NULL, '{"canary7f3": null}');
INSERT INTO orders (account_id, customer_id, number, comment) VALUES (1, 1, 1, 'canary7f3-first'), (1, 2, 2, NULL), (3, 4, 3, 'canary7f3-third');
