// What the Node programs share: steps that print a line `== name` and the answer.
const line = (value) => {
  if (value === null || value === undefined) return 'null';
  if (value instanceof Date) return value.toISOString();
  if (Array.isArray(value)) return '[' + value.map(line).join(', ') + ']';
  if (typeof value.toFixed === 'function') return value.toString();
  if (typeof value === 'object') return '{' + Object.entries(value).map(([k, v]) => `${k}: ${line(v)}`).join(', ') + '}';
  return String(value);
};

const show = (value) => {
  if (Array.isArray(value)) value.forEach((row) => console.log(line(row)));
  else if (value !== undefined) console.log(line(value));
};

// The server's error somewhere inside that of a library.
const serverError = (error) => {
  for (let e = error; e; e = e.cause ?? e.driverError ?? e.meta?.driverAdapterError) {
    const code = e.code ?? e.originalCode;
    if (/^[0-9A-Z]{5}$/.test(code ?? '') && !/^P\d{4}$/.test(code)) return `${code} ${e.originalMessage ?? e.message}`;
  }
  return undefined;
};

exports.step = async (name, act) => {
  console.log('==', name);
  try {
    show(await act());
  } catch (error) {
    const told = serverError(error);
    if (told) console.log('error', told.split('\n').at(-1));
    else if (error.code) console.log('error', error.code, error.message.split('\n').at(-1));
    else console.log('broken', error.stack);
  }
};

exports.fields = (n, accountId, more = {}) => ({
  accountId, name: `name${n}`, rank: n, email: `canary7f3-${n}@example.com`, phone: `canary7f3-phone-${n}`, ssn: `canary7f3-ssn-${n}`,
  birth: `1990-01-${String((n % 28) + 1).padStart(2, '0')}`, balance: (n / 4).toFixed(2), visits: 7300 + n,
  joined: new Date(Date.UTC(2024, 1, 29, 12, n % 60)), extra: { canary7f3: n, list: [1, null, 'é'] }, ...more });

exports.range = (from, to) => Array.from({ length: to - from }, (_, n) => from + n);

exports.schema = [
  'CREATE TABLE account (id serial PRIMARY KEY, name varchar(100) NOT NULL UNIQUE)',
  `CREATE TABLE customer (id serial PRIMARY KEY, account_id int NOT NULL REFERENCES account, name varchar(100) NOT NULL, rank int NOT NULL DEFAULT 0,
     email varchar(254) NOT NULL, phone varchar(40), ssn text, birth date, balance numeric(12,2), visits int, joined timestamptz, extra jsonb,
     CONSTRAINT one_email UNIQUE (account_id, email))`,
  'CREATE INDEX by_phone ON customer (phone)',
  'CREATE TABLE orders (id serial PRIMARY KEY, account_id int NOT NULL, customer_id int NOT NULL REFERENCES customer ON DELETE CASCADE, number int NOT NULL, comment text)',
];
