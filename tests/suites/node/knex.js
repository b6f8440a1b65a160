// Knex: schema builder, query builder, transactions, streams, by node-postgres.
const knex = require('knex');
const { step, fields, range } = require('./common.js');

const row = (n, a, more = {}) => { const { accountId, extra, ...rest } = fields(n, a, more); return { account_id: accountId, extra: JSON.stringify(extra), ...rest }; };

(async () => {
  const env = process.env;
  const db = knex({ client: 'pg', connection: { host: env.PGHOST, port: +env.PGPORT, user: env.PGUSER, database: env.PGDATABASE }, pool: { min: 0, max: 2 } });
  require('pg').types.setTypeParser(1082, (text) => text);
  console.log('version', require('knex/package.json').version);
  const EMAILS = [3, 6, 30, 33, 1].map((n) => `canary7f3-${n}@example.com`);
  const customers = () => db('customer').orderBy('id');

  await step('accounts', () => db.schema.createTable('account', (t) => { t.increments(); t.string('name', 100).notNullable().unique(); }));
  await step('customers', () => db.schema.createTable('customer', (t) => {
    t.increments();
    t.integer('account_id').notNullable().references('account.id');
    t.string('name', 100).notNullable();
    t.integer('rank').notNullable().defaultTo(0);
    t.string('email', 254).notNullable();
    t.string('phone', 40).index();
    t.text('ssn');
    t.date('birth');
    t.decimal('balance', 12, 2);
    t.integer('visits');
    t.timestamp('joined', { useTz: true });
    t.jsonb('extra');
    t.unique(['account_id', 'email'], { indexName: 'one_email' });
  }));
  await step('orders', () => db.schema.createTable('orders', (t) => { t.increments(); t.integer('account_id').notNullable(); t.integer('customer_id').references('customer.id').onDelete('CASCADE'); t.integer('number'); }));
  await step('a column more', () => db.schema.alterTable('orders', (t) => { t.text('comment'); }));
  await step('hasTable, hasColumn', async () => [await db.schema.hasTable('customer'), await db.schema.hasColumn('customer', 'email'), Object.keys(await db('customer').columnInfo()).join()]);
  await step('insert', () => db('account').insert([{ name: 'one' }, { name: 'two' }, { name: 'three' }]).returning('id'));
  await step('insert many', () => db('customer').insert(range(1, 20).map((n) => row(n, (n % 3) + 1))).returning(['id', 'email']));
  await step('batchInsert', () => db.batchInsert('customer', range(20, 50).map((n) => row(n, (n % 3) + 1)), 7).returning('email'));
  await step('insert with gaps', () => db('customer').insert([{ account_id: 1, name: 'null', email: 'canary7f3-null' }, { account_id: 1, name: 'ssn', email: 'canary7f3-ssn', ssn: '' }]).returning('*'));
  await step('orders of some', () => db('orders').insert(range(1, 6).map((n) => ({ account_id: (n % 3) + 1, customer_id: n, number: n, comment: `canary7f3-comment-${n}` }))).returning('*'));
  await step('unique violation', () => db('customer').insert(row(1, 2)));
  await step('merge', () => db('customer').insert(row(2, 3, { ssn: 'canary7f3-merged' })).onConflict(['account_id', 'email']).merge(['ssn']).returning(['id', 'ssn']));
  await step('merge all', () => db('customer').insert(row(2, 3, { phone: 'canary7f3-merged' })).onConflict(['account_id', 'email']).merge().returning(['id', 'phone']));
  await step('ignore', () => db('customer').insert(row(2, 3)).onConflict().ignore().returning('id'));
  await step('select', () => customers());
  await step('where', () => customers().where({ account_id: 1, email: EMAILS[0] }).first('name'));
  await step('whereIn', () => customers().where({ account_id: 1 }).whereIn('email', EMAILS).pluck('name'));
  await step('whereIn of pairs', () => customers().whereIn(['account_id', 'email'], [[1, EMAILS[0]], [2, EMAILS[4]]]).pluck('name'));
  await step('whereNot, whereNotIn, whereNull', async () => [await customers().where({ account_id: 1 }).whereNot('email', EMAILS[0]).pluck('name'), await customers().where({ account_id: 1 }).whereNotIn('email', EMAILS).pluck('name'), await customers().whereNull('phone').pluck('name')]);
  await step('joins', () => db('orders').join('customer', 'customer.id', 'orders.customer_id').leftJoin('account', 'account.id', 'customer.account_id').select('orders.comment', 'customer.email', 'account.name').orderBy('orders.id'));
  await step('counts', () => db('customer').count({ n: 'email' }).countDistinct({ d: 'phone' }).max({ m: 'rank' }));
  await step('group by', () => db('customer').select('account_id').count('phone').groupBy('account_id').orderBy('account_id'));
  await step('union all', async () => (await db('customer').select('email').where('rank', 3).unionAll(db('customer').select('email').where('rank', 4))).map((r) => r.email).sort());
  await step('with', () => db.with('few', db('customer').select('id', 'email').where('account_id', 1)).select('*').from('few').orderBy('id').limit(3));
  await step('subquery', () => db('orders').select('number', db('customer').select('email').whereRaw('customer.id = orders.customer_id').as('mail')).orderBy('id'));
  await step('json', () => db('customer').select(db.raw("json_build_object('id', id, 'email', email) AS doc")).orderBy('id').limit(2));
  await step('like', () => customers().whereLike('email', 'canary%').pluck('name'));
  await step('ilike', () => customers().whereILike('email', 'CANARY%').pluck('name'));
  await step('between', () => customers().whereBetween('visits', [1, 2]).pluck('name'));
  await step('order by a sealed column', () => db('customer').orderBy('email').pluck('name'));
  await step('sum of a sealed column', () => db('customer').sum('balance'));
  await step('update', () => db('customer').where({ account_id: 1, email: EMAILS[0] }).update({ ssn: 'canary7f3-upd', birth: null }, ['id', 'ssn', 'birth']));
  await step('update many', () => db('customer').where('rank', '>', 40).update({ ssn: 'canary7f3-many' }));
  await step('increment of a sealed column', () => db.transaction(async (tx) => { await tx('customer').where('id', 3).increment('visits', 1); throw new Error('undone'); }).catch((e) => { if (e.code) throw e; }));
  await step('delete', () => db('customer').where({ account_id: 1, email: EMAILS[2] }).del(['id', 'email']));
  await step('transaction', () => db.transaction(async (tx) => {
    await tx('customer').where('id', 3).update({ ssn: 'canary7f3-tx' });
    await tx.transaction(async (inner) => { await inner('customer').where('id', 3).update({ ssn: 'canary7f3-inner' }); await inner('customer').insert(row(1, 2)); }).catch((e) => console.log(e.code));
    return tx('customer').where('id', 3).pluck('ssn');
  }));
  await step('for update', () => db.transaction((tx) => tx('customer').where('id', 3).forUpdate().select('email')));
  await step('stream', async () => { const seen = []; for await (const r of db('customer').select('id', 'email').orderBy('id').stream({ highWaterMark: 5 })) seen.push(`${r.id} ${r.email}`); return seen; });
  await step('raw', () => db.raw('SELECT email, joined FROM customer WHERE account_id = ? AND email = :e'.replace(':e', '?'), [1, EMAILS[1]]).then((r) => r.rows));
  await step('truncate', () => db('orders').where('number', 5).del());
  await step('at the end', () => customers());
  await db.destroy();
})().catch((error) => { console.error(error); process.exit(1); });
