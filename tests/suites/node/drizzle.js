// Drizzle by the driver named as the argument: node-postgres or postgres.js.
const { sql, eq, ne, and, or, inArray, notInArray, isNull, like, gt, asc, desc, count, countDistinct, max, sum, relations, exists, between } = require('drizzle-orm');
const p = require('drizzle-orm/pg-core');
const { step, fields, range, schema: ddl } = require('./common.js');

const account = p.pgTable('account', { id: p.serial('id').primaryKey(), name: p.varchar('name', { length: 100 }).notNull() });
const customer = p.pgTable('customer', {
  id: p.serial('id').primaryKey(), accountId: p.integer('account_id').notNull(), name: p.varchar('name', { length: 100 }).notNull(),
  rank: p.integer('rank').notNull().default(0), email: p.varchar('email', { length: 254 }).notNull(), phone: p.varchar('phone', { length: 40 }),
  ssn: p.text('ssn'), birth: p.date('birth'), balance: p.numeric('balance', { precision: 12, scale: 2 }), visits: p.integer('visits'),
  joined: p.timestamp('joined', { withTimezone: true }), extra: p.jsonb('extra') });
const orders = p.pgTable('orders', {
  id: p.serial('id').primaryKey(), accountId: p.integer('account_id').notNull(), customerId: p.integer('customer_id').notNull(),
  number: p.integer('number').notNull(), comment: p.text('comment') });
const accountRelations = relations(account, ({ many }) => ({ customers: many(customer) }));
const customerRelations = relations(customer, ({ one, many }) => ({
  account: one(account, { fields: [customer.accountId], references: [account.id] }), orders: many(orders) }));
const orderRelations = relations(orders, ({ one }) => ({ customer: one(customer, { fields: [orders.customerId], references: [customer.id] }) }));
const schema = { account, customer, orders, accountRelations, customerRelations, orderRelations };

(async () => {
  const env = process.env;
  const place = { host: env.PGHOST, port: +env.PGPORT, user: env.PGUSER, database: env.PGDATABASE };
  const other = process.argv[2] === 'postgres';
  const client = other ? require('postgres')({ ...place, max: 2, onnotice() {} }) : new (require('pg').Pool)({ ...place, max: 2 });
  const db = require(other ? 'drizzle-orm/postgres-js' : 'drizzle-orm/node-postgres').drizzle({ client, schema });
  const version = (name) => JSON.parse(require('fs').readFileSync(`${env.NODE_PATH}/${name}/package.json`)).version;
  console.log('version', version('drizzle-orm'), process.argv[2], version(process.argv[2]));
  const all = () => db.select().from(customer).orderBy(asc(customer.id));
  const mine = (email) => and(eq(customer.accountId, 1), eq(customer.email, email));
  const EMAILS = [3, 6, 30, 33, 1].map((n) => `canary7f3-${n}@example.com`);

  for (const [n, text] of ddl.entries()) await step(`schema ${n}`, () => db.execute(sql.raw(text)).then(() => undefined));
  await step('insert accounts', () => db.insert(account).values(['one', 'two', 'three'].map((name) => ({ name }))).returning());
  await step('insert many with returning', () => db.insert(customer).values(range(1, 40).map((n) => fields(n, (n % 3) + 1))).returning());
  await step('insert one', () => db.insert(customer).values(fields(40, 1)).returning({ id: customer.id, email: customer.email, joined: customer.joined }));
  await step('insert defaults and nulls', () => db.insert(customer).values([{ accountId: 1, name: 'null', email: 'canary7f3-null' }, { accountId: 1, name: 'empty', email: 'canary7f3-empty', ssn: '' }]).returning());
  await step('insert orders', () => db.insert(orders).values(range(1, 10).flatMap((n) => range(0, 2).map((m) => ({ accountId: (n % 3) + 1, customerId: n, number: m, comment: `canary7f3-comment-${n}-${m}` })))).returning());
  await step('unique violation', () => db.insert(customer).values(fields(1, 2)));
  await step('not null violation', () => db.insert(customer).values({ accountId: 1, name: 'x', email: null }));
  await step('too long', () => db.insert(customer).values(fields(99, 1, { phone: 'canary7f3'.repeat(9) })));
  await step('bad number', () => db.insert(customer).values(fields(99, 1, { visits: 1e12 })));
  await step('upsert by the key', () => db.insert(customer).values({ id: 1, ...fields(101, 2) }).onConflictDoUpdate({ target: customer.id, set: { ssn: 'canary7f3-up', name: 'up' } }).returning());
  await step('upsert by a sealed column', () => db.insert(customer).values([fields(2, 3, { rank: 200 }), fields(50, 3)]).onConflictDoUpdate({ target: [customer.accountId, customer.email], set: { ssn: sql`excluded.ssn`, rank: sql`excluded.rank` } }).returning());
  await step('do nothing', () => db.insert(customer).values(fields(1, 2)).onConflictDoNothing().returning());

  await step('select all', all);
  await step('where', () => all().where(mine(EMAILS[0])));
  await step('where a global column', () => all().where(eq(customer.phone, 'canary7f3-phone-5')));
  await step('where a number', () => all().where(and(eq(customer.accountId, 2), eq(customer.visits, 7307))));
  await step('where in', () => db.select({ name: customer.name }).from(customer).where(and(eq(customer.accountId, 1), inArray(customer.email, EMAILS))).orderBy(customer.id));
  await step('where not in', () => db.select({ name: customer.name }).from(customer).where(and(eq(customer.accountId, 1), notInArray(customer.email, EMAILS))).orderBy(customer.id));
  await step('where or, not equal, null', () => db.select({ name: customer.name }).from(customer).where(and(eq(customer.accountId, 1), or(ne(customer.email, EMAILS[0]), isNull(customer.phone)))).orderBy(customer.id));
  await step('where without the tenant', () => all().where(eq(customer.email, EMAILS[0])));
  await step('like', () => all().where(like(customer.email, 'canary%')).limit(1));
  await step('greater', () => all().where(gt(customer.visits, 5)).limit(1));
  await step('between', () => all().where(between(customer.birth, '1990-01-01', '1990-01-03')).limit(1));
  await step('order by a sealed column', () => db.select().from(customer).orderBy(customer.email).limit(1));
  await step('limit and offset', () => db.select({ email: customer.email }).from(customer).orderBy(desc(customer.rank), customer.id).limit(4).offset(3));
  await step('join', () => db.select().from(orders).innerJoin(customer, eq(orders.customerId, customer.id)).orderBy(orders.id).limit(5));
  await step('left join', () => db.select({ email: customer.email, comment: orders.comment }).from(customer).leftJoin(orders, eq(orders.customerId, customer.id)).orderBy(customer.id, orders.id).limit(30));
  await step('subquery', () => { const few = db.select({ id: customer.id, email: customer.email }).from(customer).where(eq(customer.accountId, 2)).as('few'); return db.select().from(few).orderBy(few.id).limit(3); });
  await step('exists', () => db.select({ email: customer.email }).from(customer).where(exists(db.select({ one: sql`1` }).from(orders).where(eq(orders.customerId, customer.id)))).orderBy(customer.id));
  await step('with', () => { const few = db.$with('few').as(db.select({ id: customer.id, mail: customer.email }).from(customer).where(eq(customer.accountId, 1))); return db.with(few).select().from(few).orderBy(few.id).limit(3); });
  await step('group by the key', () => db.select({ email: customer.email, n: count(orders.id) }).from(customer).leftJoin(orders, eq(orders.customerId, customer.id)).groupBy(customer.id).orderBy(customer.id).limit(4));
  await step('group by a sealed column', async () => (await db.select({ phone: customer.phone, n: count() }).from(customer).groupBy(customer.phone)).map((r) => `${r.phone} ${r.n}`).sort().slice(0, 4));
  await step('counts', () => db.select({ n: count(customer.email), d: countDistinct(customer.phone), m: max(customer.rank) }).from(customer));
  await step('db.$count', () => db.$count(customer, mine(EMAILS[0])));
  await step('max of a sealed column', () => db.select({ m: max(customer.visits) }).from(customer));
  await step('sum of a sealed column', () => db.select({ m: sum(customer.balance) }).from(customer));
  await step('distinct', async () => (await db.selectDistinct({ phone: customer.phone }).from(customer)).map((r) => String(r.phone)).sort().slice(0, 3));
  await step('distinct on', () => db.selectDistinctOn([customer.accountId], { a: customer.accountId, email: customer.email }).from(customer).orderBy(customer.accountId, customer.id));
  await step('union all', async () => (await db.select({ e: customer.email }).from(customer).where(eq(customer.rank, 3)).unionAll(db.select({ e: customer.email }).from(customer).where(eq(customer.rank, 4)))).map((r) => r.e).sort());

  await step('relational, many', () => db.query.account.findMany({ with: { customers: { orderBy: customer.id, limit: 3 } }, orderBy: account.id }));
  await step('relational, nested', () => db.query.account.findMany({ columns: { name: true }, orderBy: account.id, with: { customers: { columns: { email: true, birth: true, balance: true, extra: true, joined: true }, orderBy: customer.id, limit: 2, with: { orders: { columns: { comment: true }, orderBy: orders.id } } } } }));
  await step('relational, one', () => db.query.orders.findFirst({ where: eq(orders.id, 4), with: { customer: { with: { account: true } } } }));
  await step('relational, where', () => db.query.customer.findFirst({ where: mine(EMAILS[0]), with: { orders: true, account: true } }));
  await step('relational, no rows', () => db.query.customer.findMany({ where: eq(customer.phone, 'canary7f3-nobody'), with: { orders: true } }));
  await step('relational, extras', () => db.query.customer.findMany({ columns: { id: true }, extras: { mail: sql`${customer.email}`.as('mail') }, where: eq(customer.accountId, 1), orderBy: customer.id, limit: 2 }));

  await step('prepared', async () => {
    const found = db.select().from(customer).where(and(eq(customer.accountId, sql.placeholder('a')), eq(customer.email, sql.placeholder('e')))).prepare('by_email');
    return [await found.execute({ a: 1, e: EMAILS[0] }), await found.execute({ a: 2, e: EMAILS[4] }), await found.execute({ a: 2, e: 'canary7f3-nobody' })];
  });
  await step('update by tenant and sealed column', () => db.update(customer).set({ ssn: 'canary7f3-new', birth: null }).where(mine(EMAILS[1])).returning());
  await step('update many', () => db.update(customer).set({ ssn: 'canary7f3-many', visits: 7000 }).where(gt(customer.rank, 35)).returning({ id: customer.id, ssn: customer.ssn, visits: customer.visits }).then((rows) => rows.sort((a, b) => a.id - b.id)));
  await step('update by key', () => db.update(customer).set({ extra: { canary7f3: 'x' } }).where(eq(customer.id, 3)).returning({ extra: customer.extra }));
  await step('update with an expression', () => db.update(customer).set({ visits: sql`${customer.visits} + 1` }).where(eq(customer.id, 3)).then(() => undefined));
  await db.update(customer).set({ visits: 7303 }).where(eq(customer.id, 3));
  await step('delete', () => db.delete(customer).where(and(eq(customer.accountId, 1), eq(customer.email, EMAILS[2]))).returning());
  await step('transaction', () => db.transaction(async (tx) => {
    await tx.update(customer).set({ ssn: 'canary7f3-tx' }).where(eq(customer.id, 3));
    try { await tx.transaction(async (inner) => { await inner.update(customer).set({ ssn: 'canary7f3-inner' }).where(eq(customer.id, 3)); inner.rollback(); }); } catch (error) { console.log(error.constructor.name); }
    return tx.select({ ssn: customer.ssn }).from(customer).where(eq(customer.id, 3));
  }));
  await step('transaction, failed', () => db.transaction(async (tx) => { await tx.update(customer).set({ ssn: 'canary7f3-lost' }).where(eq(customer.id, 3)); await tx.insert(customer).values(fields(3, 1)); }));
  await step('raw', () => db.execute(sql`SELECT id, email, joined FROM customer WHERE account_id = ${1} AND email = ${EMAILS[0]}`).then((r) => [...(r.rows ?? r)]));
  await step('raw json', () => db.execute(sql`SELECT a.name, json_agg(c ORDER BY c.id) AS all FROM account a JOIN customer c ON c.account_id = a.id WHERE c.id < 6 GROUP BY a.id ORDER BY a.id`).then((r) => [...(r.rows ?? r)]));
  if (other) {
    await step('cursor', async () => { const seen = []; for await (const rows of client`SELECT id, email FROM customer ORDER BY id`.cursor(7)) seen.push(rows.map((r) => r.email).join(' ')); return seen; });
    await step('pipelined', () => client.begin((s) => [s`SELECT email FROM customer WHERE id = 3`, s`SELECT ssn FROM customer WHERE id = 4`]).then((r) => r.map((rows) => [...rows])));
    await step('insert helper', () => client`INSERT INTO customer ${client([{ account_id: 3, name: 'helper', email: 'canary7f3-helper', phone: 'canary7f3-h' }])} RETURNING *`.then((r) => [...r]));
    await step('update helper', () => client`UPDATE customer SET ${client({ ssn: 'canary7f3-helped' })} WHERE account_id = 3 AND name = 'helper' RETURNING email, ssn`.then((r) => [...r]));
    await step('copy in', async () => { const w = await client`COPY customer (account_id, name, email) FROM STDIN`.writable(); await require('stream/promises').pipeline(require('stream').Readable.from(['1\tcopied\tcanary7f3-copied\n']), w); });
    await step('copy out', async () => { let s = ''; for await (const c of await client`COPY (SELECT name, email FROM customer WHERE account_id = 1 ORDER BY id) TO STDOUT`.readable()) s += c; return s; });
    await client.end();
  } else {
    const Cursor = require('pg-cursor'), copy = require('pg-copy-streams');
    const one = await client.connect();
    await step('cursor', async () => { const c = one.query(new Cursor('SELECT id, email FROM customer ORDER BY id')); const seen = [await c.read(5), await c.read(100)]; await c.close(); return seen.map((rows) => rows.map((r) => r.email)); });
    await step('copy in', () => require('stream/promises').pipeline(require('stream').Readable.from(['1\tcopied\tcanary7f3-copied\n']), one.query(copy.from('COPY customer (account_id, name, email) FROM STDIN'))));
    await step('copy out', async () => { let s = ''; for await (const c of one.query(copy.to('COPY (SELECT name, email FROM customer WHERE account_id = 1 ORDER BY id) TO STDOUT'))) s += c; return s; });
    one.release();
    await client.end();
  }
})().catch((error) => { console.error(error); process.exit(1); });
