# ActiveRecord: migrations, models, relations, batches, by the pg gem. Prints a line `== step` and the answer.
require 'active_record'
require 'pg'

puts "version #{ActiveRecord::VERSION::STRING} pg #{PG::VERSION}"
ActiveRecord::Base.establish_connection(
  adapter: 'postgresql', host: ENV['PGHOST'], port: ENV['PGPORT'], username: ENV['PGUSER'], database: ENV['PGDATABASE'],
  prepared_statements: ENV['PREPARED'] != 'no')
ActiveRecord::Migration.verbose = false

def step(name)
  puts "== #{name}"
  Array(yield).each { |line| puts line.is_a?(ActiveRecord::Base) ? line.attributes.values.map { |v| v.is_a?(Time) ? v.utc.iso8601(6) : v.to_s }.join(' ') : line.inspect }
rescue ActiveRecord::StatementInvalid => error
  cause = error.cause
  puts "error #{cause&.result&.error_field(PG::Result::PG_DIAG_SQLSTATE)} #{cause&.result&.error_field(PG::Result::PG_DIAG_MESSAGE_PRIMARY)}"
rescue ActiveRecord::ActiveRecordError => error
  puts "error #{error.class}"
rescue ArgumentError => error
  puts "error ArgumentError #{error.message}"
rescue StandardError => error
  puts "broken #{error.class} #{error.message}"
end

# A step that may fail on one side: it leaves nothing behind on either, not in the sequence either.
def trial(name)
  step(name) do
    answer = nil
    begin
      ActiveRecord::Base.transaction { answer = yield; raise ActiveRecord::Rollback }
    ensure
      ActiveRecord::Base.connection.execute("SELECT setval('customer_id_seq', #{$next = ($next || 0) + 1000})")
    end
    answer
  end
end

class Create < ActiveRecord::Migration[6.1]
  def change
    create_table(:account, id: :serial) { |t| t.string :name, limit: 100, null: false, index: { unique: true } }
    create_table :customer, id: :serial do |t|
      t.integer :account_id, null: false
      t.string :name, limit: 100, null: false
      t.integer :rank, null: false, default: 0
      t.string :email, limit: 254, null: false
      t.string :phone, limit: 40
      t.text :ssn
      t.date :birth
      t.decimal :balance, precision: 12, scale: 2
      t.integer :visits
      t.column :joined, :timestamptz
      t.jsonb :extra
    end
    create_table(:orders, id: :serial) { |t| t.integer :account_id, null: false; t.integer :customer_id; t.integer :number }
  end
end

class Indexes < ActiveRecord::Migration[6.1]
  def change
    add_column :orders, :comment, :text
    add_index :customer, [:account_id, :email], unique: true, name: :one_email
    add_index :customer, :phone
    add_foreign_key :customer, :account
  end
end

class Account < ActiveRecord::Base
  self.table_name = 'account'
  has_many :customers, -> { order(:id) }
end

class Customer < ActiveRecord::Base
  self.table_name = 'customer'
  belongs_to :account
  has_many :orders, -> { order(:id) }
end

class Order < ActiveRecord::Base
  belongs_to :customer
end

def fields(n, account, **more)
  { account_id: account, name: "name#{n}", rank: n, email: "canary7f3-#{n}@example.com", phone: "canary7f3-phone-#{n}", ssn: "canary7f3-ssn-#{n}",
    birth: Date.new(1990, 1, 1 + n % 28), balance: BigDecimal(n) / 4, visits: 7300 + n, joined: Time.utc(2024, 2, 29, 12, n % 60), extra: { 'canary7f3' => n } }.merge(more)
end

EMAILS = [3, 6, 30, 33, 1].map { |n| "canary7f3-#{n}@example.com" }

step('migrate') { Create.new.migrate(:up); nil }
step('migrate further') { Indexes.new.migrate(:up); nil }
[Account, Customer, Order].each(&:reset_column_information)
step('columns') { Account.columns.map { |c| [c.name, c.sql_type] } }
step('accounts') { %w[one two three].map { |name| Account.create!(name: name).id } }
step('create') { Customer.create!(fields(1, 2)) }
step('create many') { (2..20).map { |n| Customer.create!(fields(n, n % 3 + 1)).id } }
step('insert_all') { Customer.insert_all!((21..40).map { |n| fields(n, n % 3 + 1) }, returning: %w[id email]).rows }
step('insert_all, skipping') { Customer.insert_all([fields(1, 2), fields(41, 3)]).length }
trial('insert_all, by a sealed column') { Customer.insert_all([fields(1, 2), fields(42, 1)], unique_by: %i[account_id email]).length }
step('upsert_all by key') { Customer.upsert_all([fields(101, 2, id: 1), fields(102, 3, id: 2)], returning: %w[id ssn]).rows }
trial('upsert_all by a sealed column') { Customer.upsert_all([fields(3, 1, ssn: 'canary7f3-ups')], unique_by: %i[account_id email], returning: %w[id ssn]).rows }
step('unique violation') { Customer.create!(fields(4, 2)) }
step('nested') { c = Customer.new(fields(50, 1)); 3.times { |n| c.orders.build(account_id: 1, number: n, comment: "canary7f3-comment-#{n}") }; c.save!; c.orders.map(&:comment) }
step('all') { Customer.order(:id).to_a }
step('find, find_by') { [Customer.find(3), Customer.find_by(account_id: 1, email: EMAILS[0]), Customer.find_by(phone: 'canary7f3-phone-5')] }
step('find_by!, nobody') { Customer.find_by!(phone: 'canary7f3-nobody') }
step('where in') { Customer.where(account_id: 1, email: EMAILS).order(:id).pluck(:name) }
step('where with null') { Customer.where(phone: [nil, 'canary7f3-phone-5']).order(:id).pluck(:name) }
step('where not') { Customer.where(account_id: 1).where.not(email: EMAILS).order(:id).pluck(:name, :email) }
step('or') { Customer.where(account_id: 1, email: EMAILS[0]).or(Customer.where(rank: 6)).order(:id).pluck(:name) }
step('without the tenant') { Customer.where(email: EMAILS[0]).pluck(:name) }
step('like') { Customer.where('email LIKE ?', 'canary%').pluck(:name) }
step('a range') { Customer.where(visits: 1..9).pluck(:name) }
step('order by a sealed column') { Customer.order(:email).limit(2).pluck(:name) }
step('through the account') { Account.find(1).customers.where(email: EMAILS[0]).pluck(:name) }
step('first, last, exists') { [Customer.first.email, Customer.last.email, Customer.exists?(phone: 'canary7f3-phone-5'), Customer.where(account_id: 1).none?] }
step('counts') { [Customer.count, Customer.count(:phone), Customer.distinct.count(:phone), Customer.group(:account_id).count.sort, Customer.maximum(:rank)] }
step('sum of a sealed column') { Customer.sum(:balance) }
step('maximum of a sealed column') { Customer.maximum(:visits) }
step('group by a sealed column') { Customer.where.not(phone: nil).group(:phone).count.sort.first(3) }
step('distinct') { Customer.distinct.pluck(:phone).map(&:to_s).sort.first(3) }
step('includes') { Account.includes(customers: :orders).order(:id).map { |a| [a.name, a.customers.first(2).map { |c| [c.email, c.orders.map(&:comment)] }] } }
step('eager_load') { Customer.eager_load(:orders, :account).where(orders: { number: 1 }).order(:id).map { |c| [c.email, c.account.name, c.orders.map(&:comment)] } }
step('joins') { Order.joins(customer: :account).order(:id).pluck('orders.comment', 'customer.email', 'account.name') }
step('find_each') { seen = []; Customer.find_each(batch_size: 7) { |c| seen << c.email }; seen }
step('in_batches') { Customer.in_batches(of: 15).map { |batch| batch.order(:id).pluck(:email).first } }
step('update') { c = Customer.find(3); c.update!(ssn: 'canary7f3-upd', birth: nil, extra: { 'canary7f3' => 'x' }); c.reload }
step('update_all') { Customer.where(account_id: 1).where('rank > 20').update_all(ssn: 'canary7f3-many', visits: 9) }
step('update_all across tenants') { Customer.where('rank > 35').update_all(ssn: 'canary7f3-more') }
step('update_column') { Customer.find(4).update_column(:balance, BigDecimal('1.5')); Customer.find(4).balance.to_s }
trial('increment of a sealed column') { Customer.update_counters(3, visits: 1) }
step('increment in Ruby') { Customer.find(3).tap { |c| c.increment(:visits).save! }.visits }
step('find_or_create_by') { [Customer.find_or_create_by!(account_id: 1, email: EMAILS[0]) { |c| c.name = 'x' }.id, Customer.find_or_create_by!(account_id: 1, email: 'canary7f3-new') { |c| c.name = 'new' }.name] }
step('lock') { Customer.transaction { Customer.lock.find(3).email } }
step('transactions') do
  Customer.transaction do
    Customer.find(3).update!(ssn: 'canary7f3-outer')
    begin
      Customer.transaction(requires_new: true) { Customer.find(3).update!(ssn: 'canary7f3-inner'); Customer.create!(fields(4, 2)) }
    rescue ActiveRecord::RecordNotUnique => error
      puts error.class
    end
    Customer.transaction(requires_new: true) { Customer.find(3).update!(ssn: 'canary7f3-third'); raise ActiveRecord::Rollback }
  end
  Customer.find(3).ssn
end
step('delete') { [Customer.where(account_id: 1, email: 'canary7f3-new').delete_all, Customer.find(7).destroy.email] }
step('select_all') { ActiveRecord::Base.connection.select_all("SELECT id, email, json_build_object('e', email) AS doc FROM customer WHERE id = 3").to_a }
step('exec_query with binds') { Customer.find_by_sql(['SELECT * FROM customer WHERE account_id = ? AND email = ?', 1, EMAILS[1]]) }
step('explain') { Customer.where(account_id: 1, email: EMAILS[0]).explain.include?('customer') }
trial('migrate down and up') { Indexes.new.migrate(:down); Indexes.new.migrate(:up); nil }
step('at the end') { Customer.order(:id).to_a }
