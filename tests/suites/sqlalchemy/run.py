"""SQLAlchemy's ORM and core by the driver named as the argument. Prints a line `== step` and the answer of each step."""
import asyncio
import datetime
import decimal
import itertools
import os
import sys

import sqlalchemy
from sqlalchemy import (
    JSON, ForeignKey, Integer, Numeric, String, Text, UniqueConstraint, bindparam, case, cast, create_engine, delete, exists, func,
    inspect, insert, literal, literal_column, or_, select, text, tuple_, update, values, column, Date, lateral, true, union_all)
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import DBAPIError, NoResultFound
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import (
    DeclarativeBase, Mapped, Session, aliased, contains_eager, deferred, joinedload, load_only, mapped_column, raiseload, relationship,
    selectinload, subqueryload)

UTC = datetime.timezone.utc


class Base(DeclarativeBase):
    pass


class Account(Base):
    __tablename__ = "account"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(100), unique=True)
    customers: Mapped[list["Customer"]] = relationship(back_populates="account", order_by="Customer.id")


class Customer(Base):
    __tablename__ = "customer"
    __table_args__ = (UniqueConstraint("account_id", "email", name="one_email"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    account_id: Mapped[int] = mapped_column(ForeignKey("account.id"))
    name: Mapped[str] = mapped_column(String(100))
    rank: Mapped[int] = mapped_column(default=0)
    email: Mapped[str] = mapped_column(String(254), index=True)
    phone: Mapped[str | None] = mapped_column(String(40), index=True)
    ssn: Mapped[str | None] = mapped_column(Text)
    birth: Mapped[datetime.date | None]
    balance: Mapped[decimal.Decimal | None] = mapped_column(Numeric(12, 2))
    visits: Mapped[int | None]
    joined: Mapped[datetime.datetime | None] = mapped_column(sqlalchemy.DateTime(timezone=True))
    extra: Mapped[dict | None] = mapped_column(postgresql.JSONB)
    account: Mapped[Account] = relationship(back_populates="customers")
    orders: Mapped[list["Order"]] = relationship(back_populates="customer", order_by="Order.id", cascade="all, delete-orphan")


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    account_id: Mapped[int]
    customer_id: Mapped[int] = mapped_column(ForeignKey("customer.id"))
    number: Mapped[int]
    comment: Mapped[str | None] = mapped_column(Text)
    customer: Mapped[Customer] = relationship(back_populates="orders")


def fields(n, account_id, **more):
    made = dict(
        account_id=account_id, name=f"name{n}", rank=n, email=f"canary7f3-{n}@example.com", phone=f"canary7f3-phone-{n}",
        ssn=f"canary7f3-ssn-{n}", birth=datetime.date(1990, 1, 1) + datetime.timedelta(n), balance=decimal.Decimal(n) / 4,
        visits=7300 + n, joined=datetime.datetime(2024, 2, 29, 12, n % 60, tzinfo=UTC), extra={"canary7f3": n, "list": [1, None, "é"]})
    return {**made, **more}


def show(value):
    if isinstance(value, Customer):
        print(value.id, value.account_id, value.name, value.email, value.phone, value.ssn, value.birth, value.balance,
              value.visits, value.joined, value.extra)
    elif isinstance(value, sqlalchemy.Row):
        print(*(v.id if isinstance(v, Base) else v for v in value))
    elif isinstance(value, list):
        for one in value:
            show(one)
    elif value is not None:
        print(value)


def work(connection):
    def step(name, act, undo=False):
        print("==", name)
        try:
            with Session(connection, join_transaction_mode="create_savepoint") as session:
                show(act(session))
                session.rollback() if undo else session.commit()
        except DBAPIError as error:
            cause = error.orig
            said = str(getattr(cause, "diag", None) and cause.diag.message_primary or cause)
            print("error", type(error).__name__, cause.sqlstate, said.splitlines()[0].split(">: ")[-1])
        except NoResultFound:
            print("error NoResultFound")
        except Exception as error:
            print("broken", type(error).__name__, error)

    trials = itertools.count(2)

    def trial(name, act):
        """A step that may fail on one side: it leaves nothing behind on either, not in the sequences either."""
        step(name, act, undo=True)
        number = next(trials)
        for table in ["account", "customer", "orders"]:
            connection.execute(text(f"SELECT setval('{table}_id_seq', {number}000)"))

    print("version", sqlalchemy.__version__, DRIVER, sys.modules[DRIVER].__version__)
    step("create_all", lambda s: Base.metadata.create_all(s.connection()))
    step("create_all again", lambda s: Base.metadata.create_all(s.connection()))
    step("inspect", lambda s: [
        sorted(inspect(s.connection()).get_table_names()), inspect(s.connection()).get_pk_constraint("customer")["constrained_columns"],
        [(c["name"], str(c["type"])) for c in inspect(s.connection()).get_columns("account")]])
    step("reflect", lambda s: sorted(c.name for c in sqlalchemy.Table("customer", sqlalchemy.MetaData(), autoload_with=s.connection()).columns))

    step("accounts", lambda s: s.add_all([Account(id=n, name=name) for n, name in enumerate(["one", "two", "three"], 1)]))
    step("add_all with keys", lambda s: s.add_all([Customer(**fields(n, n % 3 + 1), id=n) for n in range(1, 50)]))
    step("add one by one", lambda s: [s.add(c := Customer(**fields(n, 1))) or s.flush() or c.id for n in (50, 51)])
    step("add with nulls", lambda s: (s.add(Customer(account_id=1, name="null", email="canary7f3-null@example.com")), s.flush())[0])
    step("add an empty text", lambda s: s.add(Customer(account_id=1, name="empty", email="canary7f3-empty@example.com", ssn="", phone="")))
    trial("add_all, nothing", lambda s: s.add_all([]))
    trial("add_all", lambda s: (s.add_all([Customer(**fields(n, n % 3 + 1)) for n in range(60, 68)]), s.flush(),
                                s.scalars(select(Customer).where(Customer.rank >= 60).order_by(Customer.id)).all())[2])
    trial("cascade of new objects", lambda s: (
        c := Customer(**fields(60, 2), orders=[Order(account_id=2, number=n, comment=f"canary7f3-comment-{n}") for n in range(3)]),
        s.add(c), s.flush(), [c.id] + [o.id for o in c.orders])[3])
    trial("insertmanyvalues with RETURNING", lambda s: list(s.execute(
        insert(Customer).returning(Customer.id, Customer.email, sort_by_parameter_order=True), [fields(n, n % 3 + 1) for n in range(60, 90)])))
    trial("insertmanyvalues in pages", lambda s: list(s.scalars(
        insert(Customer).returning(Customer, sort_by_parameter_order=True), [fields(n, 3) for n in range(60, 66)],
        execution_options={"insertmanyvalues_page_size": 4})))
    trial("insertmanyvalues in any order", lambda s: sorted(s.scalars(insert(Customer).returning(Customer.email), [fields(n, 3) for n in range(60, 70)])))
    step("bulk insert without RETURNING", lambda s: s.execute(insert(Customer), [fields(n, 1, ssn=None) for n in range(80, 90)]) and None)
    step("bulk_save_objects", lambda s: s.bulk_save_objects([Customer(**fields(n, 2)) for n in range(90, 95)]))
    step("insert values", lambda s: s.execute(insert(Customer).values([fields(n, 2) for n in (95, 96)]).returning(Customer.id, Customer.ssn)).all())
    step("new objects by a relationship", lambda s: (
        c := Customer(**fields(98, 2), id=98, orders=[Order(id=n, account_id=2, number=n, comment=f"canary7f3-comment-{n}") for n in range(3)]),
        s.add(c), s.flush(), [c.id] + [o.id for o in c.orders])[3])
    trial("insert with an expression", lambda s: s.execute(insert(Customer).values(**fields(97, 2, rank=func.length("abc"))).returning(Customer.rank, Customer.email)).all())
    trial("insert from select", lambda s: s.execute(insert(Order).from_select(
        ["account_id", "customer_id", "number"], select(Customer.account_id, Customer.id, literal(9)).where(Customer.rank < 4))).rowcount)
    step("unique violation", lambda s: (s.add(Customer(**fields(1, 2))), s.flush()))
    step("not null violation", lambda s: s.execute(insert(Customer).values(account_id=1, name="x")))
    step("too long", lambda s: s.execute(insert(Customer).values(**fields(1, 1, phone="canary7f3" * 9))))

    EMAILS = [f"canary7f3-{n}@example.com" for n in (3, 6, 30, 33, 1)]
    C = Customer
    everyone = select(C).order_by(C.id)
    step("where", lambda s: s.scalars(everyone.where(C.account_id == 1, C.email == EMAILS[0])).all())
    step("where, a global column", lambda s: s.scalars(everyone.where(C.phone == "canary7f3-phone-5")).all())
    step("where, the other way round", lambda s: s.scalars(everyone.where(literal("canary7f3-phone-5") == C.phone)).all())
    step("where in", lambda s: s.scalars(select(C.name).where(C.account_id == 1, C.email.in_(EMAILS)).order_by(C.id)).all())
    step("where not in", lambda s: s.scalars(select(C.name).where(C.account_id == 1, C.email.not_in(EMAILS)).order_by(C.id)).all())
    step("where in, empty", lambda s: s.scalars(select(C.name).where(C.account_id == 1, C.email.in_([]))).all())
    step("where tuples in", lambda s: s.scalars(select(C.name).where(tuple_(C.account_id, C.email).in_([(1, EMAILS[0]), (2, EMAILS[4])])).order_by(C.id)).all())
    step("where any", lambda s: s.scalars(select(C.name).where(C.phone == func.any(["canary7f3-phone-5", "canary7f3-phone-6"])).order_by(C.id)).all())
    step("where is null", lambda s: s.scalars(select(C.name).where(C.phone.is_(None)).order_by(C.id)).all())
    step("where different", lambda s: s.scalars(select(C.name).where(C.account_id == 1, C.email != EMAILS[0]).order_by(C.id)).all())
    step("where is distinct", lambda s: s.scalars(select(C.name).where(C.phone.is_distinct_from("canary7f3-phone-5")).order_by(C.id).limit(4)).all())
    step("where or", lambda s: s.scalars(select(C.name).where(C.account_id == 1, or_(C.email == EMAILS[0], C.rank == 6)).order_by(C.id)).all())
    step("where a number", lambda s: s.scalars(select(C.name).where(C.account_id == 1, C.visits == 7306)).all())
    step("where a subquery", lambda s: s.scalars(select(C.name).where(C.phone.in_(select(C.phone).where(C.rank < 3))).order_by(C.id)).all())
    step("where exists", lambda s: s.scalars(select(C.name).where(exists().where(Order.customer_id == C.id)).order_by(C.id)).all())
    step("where without the tenant", lambda s: s.scalars(select(C.name).where(C.email == EMAILS[0])).all())
    step("like", lambda s: s.scalars(select(C.name).where(C.email.like("canary%"))).all())
    step("ilike", lambda s: s.scalars(select(C.name).where(C.email.ilike("canary%"))).all())
    step("lower", lambda s: s.scalars(select(C.name).where(func.lower(C.email) == EMAILS[0])).all())
    step("greater", lambda s: s.scalars(select(C.name).where(C.visits > 5)).all())
    step("between", lambda s: s.scalars(select(C.name).where(C.birth.between(datetime.date(1990, 1, 1), datetime.date(1990, 2, 1)))).all())
    step("order by a sealed column", lambda s: s.scalars(select(C.name).order_by(C.email)).all())
    step("a key of a json", lambda s: s.scalars(select(C.name).where(C.extra["canary7f3"].astext == "3")).all())
    step("concatenation", lambda s: s.scalars(select(C.email + "x")).all())

    step("columns", lambda s: s.execute(select(C.id, C.email, C.balance, C.joined, C.extra).order_by(C.id).limit(4)).all())
    step("labels", lambda s: [row._mapping["mail"] for row in s.execute(select(C.email.label("mail")).order_by(C.id).limit(3))])
    step("get", lambda s: s.get(C, 3))
    step("get for update", lambda s: s.get(C, 3, with_for_update=True))
    step("one or none", lambda s: s.scalars(select(C).where(C.phone == "canary7f3-nobody")).one_or_none())
    step("one of nobody", lambda s: s.scalars(select(C).where(C.phone == "canary7f3-nobody")).one())
    step("load_only", lambda s: [(c.email, c.ssn) for c in s.scalars(everyone.options(load_only(C.email)).limit(2))])
    step("limit and offset", lambda s: s.scalars(select(C.email).order_by(C.rank.desc(), C.id).limit(5).offset(3)).all())
    step("selectinload", lambda s: [(a.name, [(c.email, len(c.orders)) for c in a.customers][:4]) for a in s.scalars(
        select(Account).order_by(Account.id).options(selectinload(Account.customers).selectinload(C.orders)))])
    step("joinedload", lambda s: [(c.email, [o.comment for o in c.orders], c.account.name) for c in s.scalars(
        everyone.options(joinedload(C.orders), joinedload(C.account)).limit(9)).unique()])
    step("joinedload, many to one", lambda s: [(o.comment, o.customer.email, o.customer.account.name) for o in s.scalars(
        select(Order).order_by(Order.id).options(joinedload(Order.customer, innerjoin=True).joinedload(C.account)))])
    step("subqueryload", lambda s: [(a.name, len(a.customers), a.customers[0].ssn) for a in s.scalars(
        select(Account).order_by(Account.id).options(subqueryload(Account.customers)))])
    step("contains_eager", lambda s: [(c.email, [o.number for o in c.orders]) for c in s.scalars(
        select(C).join(C.orders).where(Order.number == 2).options(contains_eager(C.orders)).order_by(C.id)).unique()])
    step("lazy loading", lambda s: [(c.account.name, [o.comment for o in c.orders]) for c in s.scalars(everyone.where(C.rank == 98))])
    step("join", lambda s: s.execute(select(C.email, Order.comment).join(Order, Order.customer_id == C.id).order_by(Order.id)).all())
    step("outer join", lambda s: s.execute(select(C.email, Order.comment).outerjoin(Order).order_by(C.id, Order.id).limit(6)).all())
    other = aliased(C)
    step("self join over sealed columns", lambda s: s.execute(select(C.id, other.id).join(
        other, (C.account_id == other.account_id) & (C.email == other.email)).order_by(C.id).limit(4)).all())

    counted = func.count(Order.id).label("n")
    step("group by the key", lambda s: s.execute(select(C.id, C.email, counted).outerjoin(Order).group_by(C.id).order_by(C.id).limit(5)).all())
    step("group by a sealed column", lambda s: sorted(tuple(r) for r in s.execute(select(C.phone, func.count()).where(C.phone.is_not(None)).group_by(C.phone)))[:4])
    step("group by the tenant", lambda s: s.execute(select(C.account_id, func.count(C.phone), func.max(C.rank)).group_by(C.account_id).order_by(C.account_id)).all())
    step("count distinct", lambda s: s.scalar(select(func.count(C.phone.distinct()))))
    step("count of a query", lambda s: s.scalar(select(func.count()).select_from(select(C.email).where(C.account_id == 1).subquery())))
    step("max of a sealed column", lambda s: s.scalar(select(func.max(C.visits))))
    step("sum of a sealed column", lambda s: s.scalar(select(func.sum(C.balance))))
    step("distinct", lambda s: sorted(s.scalars(select(C.phone).where(C.phone.is_not(None)).distinct()))[:3])
    step("distinct on", lambda s: s.execute(select(C.account_id, C.email).distinct(C.account_id).order_by(C.account_id, C.id)).all())
    step("array_agg", lambda s: s.execute(select(C.account_id, func.array_agg(postgresql.aggregate_order_by(C.email, C.id))).where(
        C.rank < 30).group_by(C.account_id).order_by(C.account_id)).all())
    step("json_agg", lambda s: s.execute(select(C.account_id, func.json_agg(postgresql.aggregate_order_by(
        func.json_build_object("mail", C.email, "born", C.birth, "balance", C.balance), C.id))).where(C.rank < 10).group_by(C.account_id).order_by(C.account_id)).all())
    step("case", lambda s: s.scalars(select(case((C.rank > 3, C.email), else_=None)).order_by(C.id).limit(5)).all())
    step("case over a comparison", lambda s: s.scalars(select(case((C.phone == "canary7f3-phone-2", "yes"), else_="no")).order_by(C.id).limit(4)).all())
    step("coalesce", lambda s: s.scalars(select(func.coalesce(C.phone, literal_column("'none'"))).order_by(C.id).limit(9)).all())
    step("coalesce with a parameter", lambda s: s.scalars(select(func.coalesce(C.phone, "none")).order_by(C.id).limit(9)).all())
    step("cast", lambda s: s.scalars(select(cast(C.email, Text)).order_by(C.id).limit(2)).all())
    step("cast of a number", lambda s: s.scalars(select(cast(C.visits, Text)).order_by(C.id).limit(2)).all())
    step("scalar subquery", lambda s: s.execute(select(Order.number, select(C.email).where(C.id == Order.customer_id).scalar_subquery()).order_by(Order.id)).all())
    step("lateral", lambda s: (lambda last: s.execute(select(Account.name, last.c.email).join(last, true()).order_by(Account.id)).all())(
        select(C.email).where(C.account_id == Account.id).order_by(C.id.desc()).limit(1).lateral("last")))
    step("cte", lambda s: (lambda few: s.execute(select(few.c.email, few.c.id).where(few.c.id > 2).order_by(few.c.id)).all())(
        select(C.id, C.account_id, C.email).where(C.rank < 6).cte("few")))
    step("window", lambda s: s.execute(select(C.email, func.row_number().over(partition_by=C.account_id, order_by=C.id)).order_by(C.id).limit(5)).all())
    step("lag of a sealed column", lambda s: s.execute(select(C.id, func.lag(C.email).over(order_by=C.id, partition_by=C.account_id)).order_by(C.id).limit(5)).all())
    step("union all", lambda s: sorted(s.scalars(union_all(select(C.email).where(C.rank < 3), select(C.email).where(C.rank == 3)))))
    step("union", lambda s: sorted(s.scalars(select(C.phone).where(C.rank == 3).union(select(C.phone).where(C.rank.in_([3, 4]))))))
    step("intersect", lambda s: sorted(s.scalars(select(C.phone).where(C.rank == 3).intersect(select(C.phone).where(C.rank.in_([3, 4]))))))
    step("except", lambda s: sorted(s.scalars(select(C.phone).where(C.rank.in_([3, 4])).except_(select(C.phone).where(C.rank == 3)))))
    step("values joined", lambda s: s.execute(select(C.email).join(values(column("r", Integer), name="v").data([(3,), (4,)]), column("r") == C.rank).order_by(C.id)).all())
    step("values joined over a sealed column", lambda s: s.execute(select(C.name).join(
        values(column("p", String), name="v").data([("canary7f3-phone-3",), ("canary7f3-phone-4",)]), column("p") == C.phone).order_by(C.id)).all())

    streaming = dict(yield_per=7)
    step("yield_per", lambda s: [(c.id, c.email, c.birth) for c in s.scalars(everyone.execution_options(**streaming))])
    step("yield_per with selectinload", lambda s: [(c.email, len(c.orders)) for c in s.scalars(
        everyone.options(selectinload(C.orders)).execution_options(**streaming))][:9])
    step("partitions", lambda s: [[row.email for row in part] for part in s.execute(
        select(C.email).order_by(C.id).execution_options(stream_results=True, max_row_buffer=4)).partitions(20)])

    U = postgresql.insert(C)
    upsert = U.on_conflict_do_update(constraint=None, index_elements=["id"], set_=dict(ssn=U.excluded.ssn, name=U.excluded.name)).returning(C.id, C.ssn, C.name)
    step("upsert by the key", lambda s: s.execute(upsert, [fields(101, 2, id=1), fields(102, 3, id=2)]).all())
    by_email = U.on_conflict_do_update(index_elements=["account_id", "email"], set_=dict(ssn=U.excluded.ssn, rank=U.excluded.rank)).returning(C.id, C.ssn, C.rank)
    step("upsert by a sealed column", lambda s: s.execute(by_email, [fields(1, 2, rank=900), fields(110, 2)]).all()[:1])
    trial("upsert by a constraint", lambda s: s.execute(U.on_conflict_do_update(constraint="one_email", set_=dict(rank=901)).returning(C.rank), [fields(1, 2)]).all())
    step("do nothing", lambda s: (s.execute(U.on_conflict_do_nothing(), [fields(1, 2), fields(111, 2)]), s.scalar(select(func.count(C.id))))[1])
    step("do nothing by a sealed column", lambda s: s.scalars(U.on_conflict_do_nothing(index_elements=["account_id", "email"]).returning(C.email), [fields(1, 2), fields(112, 2)]).all())

    step("change objects", lambda s: [[setattr(c, "ssn", f"canary7f3-changed-{c.id}") for c in s.scalars(everyone.where(C.rank.between(30, 36)))], s.flush(),
                                      s.scalars(select(C.ssn).where(C.rank.between(30, 36)).order_by(C.id)).all()])
    step("change objects of one tenant", lambda s: [[(setattr(c, "visits", 7399), setattr(c, "birth", None)) for c in s.scalars(
        everyone.where(C.account_id == 2, C.rank < 40))] and None, s.flush(), s.scalars(everyone.where(C.account_id == 2, C.visits == 7399)).all()])
    step("update", lambda s: s.execute(update(C).where(C.account_id == 1, C.rank > 80).values(ssn="canary7f3-upd")).rowcount)
    step("update returning", lambda s: s.execute(update(C).where(C.rank == 3).values(ssn="canary7f3-upd3", balance=None).returning(C.ssn, C.balance, C.email)).all())
    step("update by key in bulk", lambda s: [s.execute(update(C), [dict(id=n, ssn=f"canary7f3-bulk-{n}") for n in (3, 4, 5)]), s.scalars(everyone.where(C.id.in_([3, 4, 5]))).all()][1])
    step("update with many parameters", lambda s: s.connection().execute(
        update(C.__table__).where(C.__table__.c.id == bindparam("key")).values(ssn=bindparam("to")), [dict(key=n, to=f"canary7f3-to-{n}") for n in (3, 4)]).rowcount)
    step("update where sealed", lambda s: s.execute(update(C).where(C.account_id == 1, C.email.in_(EMAILS)).values(rank=C.rank + 1)).rowcount)
    trial("update with a case", lambda s: s.execute(update(C).where(C.id == 3).values(ssn=case((C.rank > 1, "canary7f3-a"), else_="canary7f3-b"))).rowcount)
    step("update from", lambda s: s.execute(update(C).where(C.account_id == Account.id, Account.name == "three").values(ssn="canary7f3-from")).rowcount)
    trial("update with sums", lambda s: s.execute(update(C).values(visits=C.visits + 1)).rowcount)
    trial("update from another column", lambda s: s.execute(update(C).values(ssn=C.email)).rowcount)
    trial("the tenant changes", lambda s: s.execute(update(C).where(C.id == 3).values(account_id=2)).rowcount)
    step("delete", lambda s: s.execute(delete(C).where(C.account_id == 1, C.phone == "canary7f3-phone-81").returning(C.id, C.email)).all())
    step("delete an object", lambda s: (s.delete(s.scalars(everyone.where(C.rank == 98)).one()), s.flush(), s.scalar(select(func.count(Order.id))))[2])
    step("merge, there", lambda s: (lambda c: (c.id, c.ssn, c.email))(s.merge(Customer(**fields(5, 3, id=5, ssn="canary7f3-merged")))))
    step("merge, not there", lambda s: (s.merge(Customer(**fields(120, 3, id=1200))), s.flush(), s.get(C, 1200))[2])
    step("merge without loading", lambda s: s.merge(s.get(C, 5), load=False).email)
    step("refresh", lambda s: (c := s.get(C, 5), s.execute(text("UPDATE customer SET ssn = 'canary7f3-text' WHERE id = 5 AND account_id = 3")), s.refresh(c), c.ssn)[3])
    step("expire", lambda s: (c := s.get(C, 5), s.expire(c), c.email)[2])

    def nested(s):
        s.get(C, 5).ssn = "canary7f3-outer"
        try:
            with s.begin_nested():
                s.get(C, 5).ssn = "canary7f3-inner"
                s.add(Customer(**fields(4, 2)))
                s.flush()
        except DBAPIError as error:
            print(type(error).__name__)
        savepoint = s.begin_nested()
        s.get(C, 5).ssn = "canary7f3-third"
        s.flush()
        savepoint.rollback()
        return [s.get(C, 5).ssn, s.scalar(select(C.ssn).where(C.id == 5))]

    step("savepoints", nested)
    step("text", lambda s: s.execute(text("SELECT id, email FROM customer WHERE account_id = :a AND email = :e"), dict(a=1, e=EMAILS[1])).all())
    step("text to objects", lambda s: s.scalars(select(C).from_statement(text("SELECT * FROM customer WHERE rank < 4 ORDER BY id"))).all())
    step("text with an error", lambda s: s.execute(text("SELECT 1 / 0")))
    step("text with an unknown column", lambda s: s.execute(text("SELECT nothing FROM customer")))
    step("a last order", lambda s: (s.add(o := Order(account_id=3, customer_id=5, number=1, comment="canary7f3-last")), s.flush(), o.comment)[2])
    step("at the end", lambda s: s.scalars(everyone).all())


DRIVER = sys.argv[1]
url = "postgresql+" + DRIVER + "://{PGUSER}@{PGHOST}:{PGPORT}/{PGDATABASE}".format(**os.environ)


async def asynchronously():
    import asyncpg
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.run_sync(work)
    await engine.dispose()


if DRIVER == "asyncpg":
    asyncio.run(asynchronously())
else:
    import psycopg
    with create_engine(url).begin() as connection:
        work(connection)
