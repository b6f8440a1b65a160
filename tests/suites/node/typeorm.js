// TypeORM: entities without decorators, synchronize, repositories, query builder, streams.
const { DataSource, EntitySchema, In, Not, IsNull, Like, MoreThan } = require('typeorm');
const { step, fields, range } = require('./common.js');

const Account = new EntitySchema({ name: 'Account', tableName: 'account', columns: { id: { type: 'int', primary: true, generated: true }, name: { type: 'varchar', length: 100, unique: true } },
  relations: { customers: { type: 'one-to-many', target: 'Customer', inverseSide: 'account' } } });
const Customer = new EntitySchema({ name: 'Customer', tableName: 'customer',
  columns: {
    id: { type: 'int', primary: true, generated: true }, accountId: { type: 'int', name: 'account_id' }, name: { type: 'varchar', length: 100 }, rank: { type: 'int', default: 0 },
    email: { type: 'varchar', length: 254 }, phone: { type: 'varchar', length: 40, nullable: true }, ssn: { type: 'text', nullable: true }, birth: { type: 'date', nullable: true },
    balance: { type: 'numeric', precision: 12, scale: 2, nullable: true }, visits: { type: 'int', nullable: true }, joined: { type: 'timestamptz', nullable: true }, extra: { type: 'jsonb', nullable: true } },
  relations: { account: { type: 'many-to-one', target: 'Account', inverseSide: 'customers', joinColumn: { name: 'account_id' } }, orders: { type: 'one-to-many', target: 'Order', inverseSide: 'customer', cascade: true } },
  indices: [{ name: 'by_phone', columns: ['phone'] }], uniques: [{ name: 'one_email', columns: ['accountId', 'email'] }] });
const Order = new EntitySchema({ name: 'Order', tableName: 'orders',
  columns: { id: { type: 'int', primary: true, generated: true }, accountId: { type: 'int', name: 'account_id' }, customerId: { type: 'int', name: 'customer_id' }, number: { type: 'int' }, comment: { type: 'text', nullable: true } },
  relations: { customer: { type: 'many-to-one', target: 'Customer', inverseSide: 'orders', joinColumn: { name: 'customer_id' }, onDelete: 'CASCADE' } } });

(async () => {
  const env = process.env;
  const db = new DataSource({ type: 'postgres', host: env.PGHOST, port: +env.PGPORT, username: env.PGUSER, database: env.PGDATABASE, entities: [Account, Customer, Order], poolSize: 2 });
  await db.initialize();
  console.log('version', JSON.parse(require('fs').readFileSync(`${env.NODE_PATH}/typeorm/package.json`)).version);
  const EMAILS = [3, 6, 30, 33, 1].map((n) => `canary7f3-${n}@example.com`);
  const accounts = db.getRepository('Account'), customers = db.getRepository('Customer'), orders = db.getRepository('Order');
  const order = { id: 'ASC' };
  const names = (where) => customers.find({ where, order, select: { name: true, id: true } }).then((all) => all.map((c) => c.name));

  await step('synchronize', () => db.synchronize());
  await step('accounts', () => accounts.save(['one', 'two', 'three'].map((name) => ({ name }))));
  await step('save one', () => customers.save(fields(1, 2)));
  await step('save many', () => customers.save(range(2, 20).map((n) => fields(n, (n % 3) + 1))).then((all) => all.map((c) => c.id)));
  await step('save in chunks', () => customers.save(range(20, 40).map((n) => fields(n, (n % 3) + 1)), { chunk: 6 }).then((all) => all.length));
  await step('insert', () => customers.insert([fields(40, 1), { accountId: 1, name: 'null', email: 'canary7f3-null' }]).then((r) => r.identifiers));
  await step('cascade', () => customers.save({ ...fields(41, 1), orders: [{ accountId: 1, number: 1, comment: 'canary7f3-c1' }, { accountId: 1, number: 2, comment: 'canary7f3-c2' }] }).then((c) => c.orders.map((o) => o.comment)));
  await step('unique violation', () => customers.insert(fields(1, 2)));
  await step('upsert', () => customers.upsert([fields(2, 3, { ssn: 'canary7f3-ups' })], ['accountId', 'email']).then(() => undefined));
  await step('find', () => customers.find({ order }));
  await step('findOneBy', () => customers.findOneBy({ accountId: 1, email: EMAILS[0] }));
  await step('in', () => names({ accountId: 1, email: In(EMAILS) }));
  await step('not, null, or', async () => [await names({ accountId: 1, email: Not(EMAILS[0]) }), await names({ phone: IsNull() }), await names([{ accountId: 1, email: EMAILS[0] }, { rank: 6 }])]);
  await step('without the tenant', () => names({ email: EMAILS[0] }));
  await step('like', () => names({ email: Like('canary%') }));
  await step('more than', () => names({ visits: MoreThan(5) }));
  await step('order by a sealed column', () => customers.find({ order: { email: 'ASC' }, take: 2 }));
  await step('relations', () => accounts.find({ order: { id: 'ASC', customers: { id: 'ASC' } }, relations: { customers: { orders: true } } }).then((all) => all.map((a) => [a.name, a.customers.slice(0, 3)])));
  await step('relations, paged', () => customers.find({ order, relations: { account: true, orders: true }, take: 3, skip: 2 }));
  await step('findAndCount', () => customers.findAndCount({ where: { accountId: 1 }, order, take: 2 }));
  await step('count, exists, max', async () => [await customers.countBy({ accountId: 1, email: In(EMAILS) }), await customers.existsBy({ phone: 'canary7f3-phone-5' }), await customers.maximum('rank', {})]);
  await step('maximum of a sealed column', () => customers.maximum('visits', {}));
  await step('query builder', () => customers.createQueryBuilder('c').innerJoinAndSelect('c.account', 'a').where('c.account_id = :a AND c.email IN (:...e)', { a: 1, e: EMAILS }).orderBy('c.id').getMany());
  await step('getRawMany', () => customers.createQueryBuilder('c').select('c.email', 'mail').addSelect('count(o.id)', 'n').leftJoin('c.orders', 'o').groupBy('c.id').orderBy('c.id').limit(3).getRawMany());
  await step('update', () => customers.update({ accountId: 1, email: EMAILS[0] }, { ssn: 'canary7f3-upd', birth: null }).then((r) => r.affected));
  await step('save a change', async () => { const c = await customers.findOneBy({ id: 3 }); c.ssn = 'canary7f3-changed'; c.extra = { canary7f3: 'x' }; await customers.save(c); return customers.findOneBy({ id: 3 }); });
  await step('update with a query builder', () => customers.createQueryBuilder().update().set({ ssn: 'canary7f3-qb' }).where('rank > 30').returning(['id', 'ssn']).execute().then((r) => r.raw.sort((a, b) => a.id - b.id)));
  await step('increment of a sealed column', () => customers.increment({ id: 3 }, 'visits', 1));
  await customers.update({ id: 3 }, { visits: 7303 });
  await step('delete', () => customers.delete({ accountId: 1, email: EMAILS[2] }).then((r) => r.affected));
  await step('remove', async () => { const c = await customers.findOneBy({ id: 5 }); return (await customers.remove(c)).email; });
  await step('transaction', () => db.transaction(async (m) => { await m.update('Customer', { id: 3 }, { ssn: 'canary7f3-lost' }); await m.insert('Customer', fields(1, 2)); }));
  await step('query', () => db.query('SELECT id, email, joined FROM customer WHERE account_id = $1 AND email = $2', [1, EMAILS[1]]));
  await step('at the end', () => customers.find({ order }));
  await db.destroy();
})().catch((error) => { console.error(error); process.exit(1); });
