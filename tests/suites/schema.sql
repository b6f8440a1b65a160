CREATE TABLE account (id serial PRIMARY KEY, name varchar(100) NOT NULL UNIQUE);
CREATE TABLE customer (id serial PRIMARY KEY, account_id int NOT NULL REFERENCES account, name varchar(100) NOT NULL, rank int NOT NULL DEFAULT 0,
  email varchar(254) NOT NULL, phone varchar(40), ssn text, birth date, balance numeric(12,2), visits int, joined timestamptz, extra jsonb,
  CONSTRAINT one_email UNIQUE (account_id, email));
CREATE INDEX by_phone ON customer (phone);
CREATE TABLE orders (id serial PRIMARY KEY, account_id int NOT NULL, customer_id int NOT NULL REFERENCES customer ON DELETE CASCADE, number int NOT NULL,
  comment text);
