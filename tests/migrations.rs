//! Do the migrations of real tools run through the proxy, and do their models then behave as on plain tables (T1)?
//! Each script migrates, works with the rows, migrates again, and prints the same lines whether the table is sealed or not.
use crate::ddl::scene;
use crate::support::clients::python;
use crate::support::postgres::Version;
use crate::support::tap::contains;

/// A project in one file: two migrations of one app, with rows written and read between and after them.
const DJANGO: &str = r#"
import os, sys, types
import django
from django.conf import settings
settings.configure(
    INSTALLED_APPS=["shop"], DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    MIGRATION_MODULES={"shop": "shop.migrations"},
    DATABASES={"default": {"ENGINE": "django.db.backends.postgresql", "NAME": os.environ["PGDATABASE"],
        "USER": "postgres", "HOST": os.environ["PGHOST"], "PORT": os.environ["PGPORT"]}})

def module(name, **content):
    made = types.ModuleType(name)
    made.__path__ = []
    made.__file__ = "/nowhere/" + name.replace(".", "/") + "/__init__.py"
    made.__dict__.update(content)
    sys.modules[name] = made
    if "." in name:
        parent, child = name.rsplit(".", 1)
        setattr(sys.modules[parent], child, made)
    return made

from django.apps import AppConfig
class Shop(AppConfig):
    name, path, default = "shop", "/nowhere/shop", True
module("shop")
module("shop.apps", Shop=Shop)
module("shop.migrations")
settings.INSTALLED_APPS[0] = "shop.apps.Shop"
django.setup()

from django.db import IntegrityError, connection, migrations, models, transaction
from django.db.migrations import executor
from django.db.migrations.loader import MigrationLoader

class First(migrations.Migration):
    initial = True
    operations = [migrations.CreateModel(name="Customer", fields=[
        ("id", models.BigAutoField(primary_key=True)),
        ("name", models.CharField(max_length=100, unique=True)),
        ("email", models.EmailField(db_index=True, max_length=254)),
        ("age", models.IntegerField(null=True)),
        ("birth", models.DateField(null=True)),
        ("extra", models.JSONField(null=True)),
        ("note", models.TextField(default="none"))])]

def fill(apps, _):
    # Inside the migration's own transaction, on the column that it has just made.
    for customer in apps.get_model("shop", "Customer").objects.all():
        customer.nick = "canary7f3-nick-" + customer.name
        customer.save()

class Second(migrations.Migration):
    dependencies = [("shop", "0001_first")]
    operations = [
        migrations.AddField("Customer", "nick", models.CharField(max_length=50, null=True, unique=True)),
        migrations.AddField("Customer", "points", models.IntegerField(default=0)),
        migrations.RunPython(fill),
        migrations.AddConstraint("Customer", models.UniqueConstraint(fields=["email", "points"], name="one_email")),
        migrations.AddIndex("Customer", models.Index(fields=["email", "points"], name="by_email")),
    ]

class Third(migrations.Migration):
    dependencies = [("shop", "0002_second")]
    operations = [
        migrations.RemoveConstraint("Customer", "one_email"),
        migrations.RemoveIndex("Customer", "by_email"),
        migrations.RemoveField("Customer", "nick"),
        migrations.RenameField("Customer", "note", "remark"),
    ]

class Loader(MigrationLoader):
    def load_disk(self):
        self.unmigrated_apps, self.migrated_apps = set(), {"shop"}
        made = [("0001_first", First), ("0002_second", Second), ("0003_third", Third)]
        self.disk_migrations = {("shop", name): of(name, "shop") for name, of in made}

executor.MigrationLoader = Loader

def migrate(name):
    state = executor.MigrationExecutor(connection).migrate([("shop", name)])
    return state.apps.get_model("shop", "Customer")

def refused(act):
    try:
        with transaction.atomic():
            act()
        return "stored"
    except IntegrityError as error:
        return error.__cause__.sqlstate

Customer = migrate("0001_first")
import datetime
Customer.objects.create(name="canary7f3-ada", email="canary7f3-ada@a", age=36, birth=datetime.date(1815, 12, 10), extra={"canary7f3": [1]})
for name in ["bob", "cy"]:
    Customer.objects.create(name="canary7f3-" + name, email="canary7f3-" + name + "@b")
print(refused(lambda: Customer.objects.create(name="canary7f3-bob", email="canary7f3-other@x")))
ada = Customer.objects.get(name="canary7f3-ada")
print(ada.email, ada.age, ada.birth, ada.extra, ada.note)
print(Customer.objects.filter(email="canary7f3-bob@b").count(), Customer.objects.filter(age__isnull=True).count())

Customer = migrate("0002_second")
print(sorted(Customer.objects.values_list("nick", flat=True)))
print(refused(lambda: Customer.objects.filter(name="canary7f3-ada").update(nick="canary7f3-nick-canary7f3-cy")))
Customer.objects.filter(name="canary7f3-ada").update(age=37)
Customer.objects.filter(name="canary7f3-cy").delete()
print(refused(lambda: Customer.objects.create(name="canary7f3-dee", email="canary7f3-ada@a", points=0)))

Customer = migrate("0003_third")
Customer.objects.create(name="canary7f3-dee", email="canary7f3-ada@a")
print([(c.email, c.age, c.remark) for c in Customer.objects.order_by("id")])
try:
    Customer.objects.get(name="canary7f3-nobody")
except Customer.DoesNotExist:
    print("nobody")
"#;

/// Alembic's operations on a table of SQLAlchemy's; `{driver}` is one of its drivers.
const ALCHEMY: &str = r#"
import asyncio, datetime, os
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import *
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

class Base(DeclarativeBase):
    pass

class Account(Base):
    __tablename__ = "account"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None] = mapped_column(String(100), unique=True)
    email: Mapped[str] = mapped_column(String(254), index=True)
    birth: Mapped[datetime.date | None]
    extra: Mapped[dict | None] = mapped_column(JSON)
    note: Mapped[str | None] = mapped_column(Text, server_default="none")

def migrate(connection, steps):
    with Operations.context(MigrationContext.configure(connection)) as op:
        steps(op)

def add(op):
    op.add_column("account", Column("age", Integer))
    op.execute(text("UPDATE account SET age = 9876543 WHERE id = 1"))
    op.create_index("by_age", "account", ["note"])
    op.create_unique_constraint("one_email", "account", ["email"])
    op.alter_column("account", "age", nullable=True, existing_type=Integer)

def remove(op):
    op.drop_constraint("one_email", "account", type_="unique")
    op.drop_index("ix_account_email", "account")
    op.drop_column("account", "birth")

def refused(session, *rows):
    try:
        with session.begin_nested():
            session.add_all(rows)
            session.flush()
        return "stored"
    except IntegrityError as error:
        return error.orig.sqlstate

def work(connection):
    Base.metadata.create_all(connection)
    with Session(connection, join_transaction_mode="create_savepoint") as session:
        session.add_all([
            Account(name="canary7f3-ada", email="canary7f3-ada@a", birth=datetime.date(1815, 12, 10), extra={"canary7f3": 1}),
            Account(name=None, email="canary7f3-bob@b")])
        session.flush()
        print(refused(session, Account(name="canary7f3-ada", email="canary7f3-x@x")))
        session.commit()
    migrate(connection, add)
    with Session(connection, join_transaction_mode="create_savepoint") as session:
        print(refused(session, Account(name=None, email="canary7f3-ada@a")))
        found = session.scalars(select(Account).where(Account.email == "canary7f3-ada@a")).one()
        print(found.name, found.email, found.birth, found.extra, found.note)
        print(session.execute(text("SELECT id, age FROM account ORDER BY id")).all())
    migrate(connection, remove)
    connection.execute(text("INSERT INTO account (email) VALUES ('canary7f3-ada@a')"))
    print(connection.execute(text("SELECT name, email, age FROM account ORDER BY id")).all())

url = "postgresql+{driver}://postgres@" + os.environ["PGHOST"] + ":" + os.environ["PGPORT"] + "/" + os.environ["PGDATABASE"]
if "{driver}" == "asyncpg":
    from sqlalchemy.ext.asyncio import create_async_engine
    async def main():
        async with create_async_engine(url).begin() as connection:
            await connection.run_sync(work)
    asyncio.run(main())
else:
    with create_engine(url).begin() as connection:
        work(connection)
"#;

fn same_as_on_plain_tables(version: Version, script: &str, table: &str) {
    let scene = scene(version);
    scene.cluster.createdb("plain");
    let plain = python(scene.cluster.host_port(), "plain", script).unwrap();
    scene.tap.take_to_server();
    let sealed = python(scene.proxy.address(), "app", script).unwrap();
    assert_eq!(sealed, plain);
    assert!(plain.contains("canary7f3") && plain.contains("23505"), "{plain}");
    assert!(!contains(&scene.tap.to_server(), b"canary7f3"), "a plaintext reached the server");
    assert!(!contains(&scene.tap.to_server(), b"9876543"), "a plaintext reached the server");
    let cells = scene.cluster.psql("app", &format!("SELECT bool_and(rowseal.is_cell(email)), count(*) FROM {table}"));
    assert_eq!(cells, "t|3");
    let plain_columns = scene.cluster.psql(
        "app",
        &format!(
            "SELECT attname FROM pg_attribute WHERE attrelid = '{table}'::regclass AND attnum > 0 AND NOT attisdropped \
             AND (format_type(atttypid, atttypmod) NOT LIKE 'rowseal.%' OR attstorage <> 'e') ORDER BY 1"
        ),
    );
    assert!(["id\npoints\nremark", "id\nnote"].contains(&&*plain_columns), "{plain_columns}");
}

#[test]
fn django_migrates_on_15() {
    same_as_on_plain_tables(Version::V15, DJANGO, "shop_customer");
}

#[test]
fn django_migrates_on_18() {
    same_as_on_plain_tables(Version::V18, DJANGO, "shop_customer");
}

#[test]
fn alembic_migrates_by_the_simple_protocol() {
    same_as_on_plain_tables(Version::V15, &ALCHEMY.replace("{driver}", "psycopg"), "account");
}

#[test]
fn alembic_migrates_by_the_extended_protocol_on_15() {
    same_as_on_plain_tables(Version::V15, &ALCHEMY.replace("{driver}", "asyncpg"), "account");
}

#[test]
fn alembic_migrates_by_the_extended_protocol_on_18() {
    same_as_on_plain_tables(Version::V18, &ALCHEMY.replace("{driver}", "asyncpg"), "account");
}
