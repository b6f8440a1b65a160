//! Do the ways in which an ORM writes many rows at once work on sealed tables as on plain ones (T1, E2)?
use std::collections::BTreeSet;

use crate::ddl::scene;
use crate::support::clients::python;
use crate::support::postgres::Version;
use crate::support::tap::contains;

/// Django's writes of many rows; `{binding}` says whether values go as parameters.
const DJANGO: &str = r#"
import datetime, os
import django
from django.conf import settings
settings.configure(INSTALLED_APPS=[], DEFAULT_AUTO_FIELD="django.db.models.BigAutoField", USE_TZ=True,
    DATABASES={"default": {"ENGINE": "django.db.backends.postgresql", "NAME": os.environ["PGDATABASE"],
        "USER": "postgres", "HOST": os.environ["PGHOST"], "PORT": os.environ["PGPORT"],
        "OPTIONS": {"server_side_binding": {binding}}}})
django.setup()
from django.db import connection, models, transaction

class Customer(models.Model):
    name = models.CharField(max_length=100)
    email = models.EmailField(max_length=254, null=True, unique=True)
    age = models.IntegerField(null=True)
    birth = models.DateField(null=True)
    nick = models.CharField(max_length=50, null=True)
    note = models.TextField(default="none")
    class Meta:
        app_label = "shop"
        db_table = "shop_customer"

with connection.schema_editor() as editor:
    editor.create_model(Customer)

def made(n, **more):
    return Customer(name=f"canary7f3-{n}", email=f"canary7f3-{n}@x", age=n if n % 2 else None,
        birth=datetime.date(2000, 1, 1 + n % 28), nick=None if n % 3 else f"canary7f3, \"{n}\" '\\", **more)

def show(rows):
    for c in rows:
        print(c.id, c.name, c.email, c.age, c.birth, c.nick, c.note)

everything = lambda: show(Customer.objects.order_by("id"))
made_rows = Customer.objects.bulk_create([made(n, note=str(n)) for n in range(10)])
show(made_rows)
Customer.objects.bulk_create([made(n) for n in range(8, 12)], ignore_conflicts=True)
rows = list(Customer.objects.order_by("id")[:3])
for c in rows:
    c.name, c.age, c.note = "canary7f3-upsert-" + c.name, 77, "upsert"
Customer.objects.bulk_create(rows, update_conflicts=True, unique_fields=["id"], update_fields=["name", "age", "note"])
everything()
rows = list(Customer.objects.order_by("id")[3:6])
for n, c in enumerate(rows):
    c.nick, c.age, c.note = f"canary7f3-bulk-{n}", None if n == 1 else n, f"bulk {n}"
print(Customer.objects.bulk_update(rows, ["nick", "age", "note"]))
everything()
print(Customer.objects.filter(note="none").update(nick="canary7f3-updated", note="updated"))
print(Customer.objects.filter(name="canary7f3-7").update(age=70))
print(Customer.objects.get_or_create(email="canary7f3-2@x", defaults={"name": "canary7f3-no"})[1])
print(Customer.objects.get_or_create(email="canary7f3-new@x", defaults={"name": "canary7f3-new"})[1])
print(Customer.objects.update_or_create(email="canary7f3-new@x", defaults={"name": "canary7f3-newer", "age": 5})[1])
print(Customer.objects.update_or_create(email="canary7f3-newest@x", defaults={"name": "canary7f3-newest"})[1])
print(Customer.objects.in_bulk(["canary7f3-2@x", "canary7f3-new@x"], field_name="email").keys())
with transaction.atomic():
    print([c.name for c in Customer.objects.select_for_update().filter(email__in=["canary7f3-3@x", "canary7f3-5@x"]).order_by("id")])
everything()
"#;

fn django(version: Version, binding: &str) {
    let script = DJANGO.replace("{binding}", binding);
    let scene = scene(version);
    scene.cluster.createdb("plain");
    let plain = python(scene.cluster.host_port(), "plain", &script).unwrap();
    scene.tap.take_to_server();
    let sealed = python(scene.proxy.address(), "app", &script).unwrap();
    assert_eq!(sealed, plain);
    assert!(plain.contains("canary7f3-bulk-2") && plain.contains("canary7f3-newest"), "{plain}");
    assert!(!contains(&scene.tap.to_server(), b"canary7f3"), "a plaintext reached the server");
    // Header 8 bytes and token 16, then the id of the data key.
    let ids = "SELECT encode(substring(name::bytea from 25 for 16), 'hex') FROM shop_customer";
    let ids = scene.cluster.psql("app", ids);
    let keys: BTreeSet<_> = ids.lines().collect();
    assert_eq!(keys.len(), ids.lines().count(), "two rows share a data key");
}

#[test]
fn django_writes_many_rows_by_the_simple_protocol_on_15() {
    django(Version::V15, "False");
}

#[test]
fn django_writes_many_rows_by_the_extended_protocol_on_15() {
    django(Version::V15, "True");
}

#[test]
fn django_writes_many_rows_by_the_simple_protocol_on_18() {
    django(Version::V18, "False");
}

#[test]
fn django_writes_many_rows_by_the_extended_protocol_on_18() {
    django(Version::V18, "True");
}
