use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;
use crate::policy::{Equality, Mask, OnKeyUnavailable, Padding, Read, TenantRule, Unsealed};
use crate::types::LogicalType;

/// The example of the design, which is a contract.
const DESIGN: &str = r#"
[listen]
address = "127.0.0.1:6432"

[upstream]
address = "127.0.0.1:5432"
tls = "prefer"

[admin]
address = "127.0.0.1:9432"

[keys]
provider = "local"
keyring = "keyring.toml"
wrapping = "direct"

[audit]
directory = "audit"

[[database]]
name = "app"
unsealed = "refuse"
read = "open"
on_key_unavailable = "error"
control = "postgres:///app?user=rowseal"

[[database.table]]
name = "public.customers"
tenant = { column = "account_id" }

[database.table.columns]
email = { type = "text", equality = "tenant" }
ssn   = { type = "text", mask = { keep_last = 4 } }
birth = { type = "date" }
code  = { type = "varchar(20)", equality = "tenant", join_group = "codes", binding = "public.customers.code", padding = "none" }

[[database.role]]
name = "analyst"
read = "mask"
"#;

fn no_variables(_: &str) -> Option<String> {
    None
}

fn parsed(text: &str) -> Result<Settings, ConfigError> {
    parse(text, Path::new("etc/rowseal.toml"), &no_variables)
}

fn message(text: &str) -> String {
    match parsed(text) {
        Ok(_) => "no error".to_owned(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn the_example_of_the_design_is_read_as_it_means() {
    let settings = parsed(DESIGN).unwrap();
    assert_eq!(settings.listen.address, "127.0.0.1:6432".parse().unwrap());
    assert_eq!(settings.admin, Some("127.0.0.1:9432".parse().unwrap()));
    assert_eq!(settings.upstream.tls, UpstreamTls::Prefer);
    assert_eq!(settings.keys.provider, Provider::Local { keyring: PathBuf::from("etc/keyring.toml") });
    assert_eq!(settings.keys.wrapping, Wrapping::Direct);
    assert_eq!(settings.keys.confirm_interval, Duration::from_secs(60));
    assert!(!settings.keys.auto_register);
    assert_eq!((&settings.audit.directory, &settings.audit.key), (&PathBuf::from("etc/audit"), &None));
    let database = settings.database("app").unwrap();
    assert_eq!(database.unsealed, Unsealed::Refuse);
    assert_eq!((database.read, database.on_key_unavailable), (Read::Open, OnKeyUnavailable::Error));
    assert_eq!(database.access::<&str>("analyst", &[]).read, Read::Mask);
    let table = database.table("public", "customers").unwrap();
    assert_eq!(table.tenant, TenantRule::Column("account_id".to_owned()));
    let names: Vec<_> = table.columns.iter().map(|column| column.name.as_str()).collect();
    assert_eq!(names, ["email", "ssn", "birth", "code"]);
    let email = table.column("email").unwrap();
    assert_eq!(email.equality, Some(Equality::Tenant));
    assert_eq!((&*email.qualified, email.binding.as_str()), ("public.customers.email", "public.customers.email"));
    assert_eq!((email.logical, email.padding), (LogicalType::Text, Padding::Padme));
    assert_eq!(table.column("ssn").unwrap().mask, Mask::KeepLast(4));
    let birth = table.column("birth").unwrap();
    assert_eq!((birth.logical, birth.padding, birth.equality), (LogicalType::Date, Padding::None, None));
    let code = table.column("code").unwrap();
    assert_eq!((code.logical, code.padding), (LogicalType::Varchar(Some(20)), Padding::None));
    assert_eq!(code.token_scope(), "codes");
}

#[test]
fn the_sample_files_are_valid() {
    for file in ["config/rowseal.toml", "config/demo.toml"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        let text = std::fs::read_to_string(&path).unwrap();
        parse(&text, &path, &no_variables).unwrap();
    }
}

#[test]
fn an_empty_file_is_a_proxy_that_seals_nothing() {
    let settings = parsed("").unwrap();
    assert_eq!(settings.listen.address.port(), 6432);
    assert!(settings.databases.is_empty() && settings.admin.is_none());
}

#[test]
fn addresses_of_the_server() {
    let address = |text: &str| parsed(&format!("[upstream]\naddress = {text:?}")).unwrap().upstream.address;
    let tcp = |host: &str, port| UpstreamAddress::Tcp { host: host.to_owned(), port };
    assert_eq!(address("db.example:5433"), tcp("db.example", 5433));
    assert_eq!(address("[::1]:5432"), tcp("::1", 5432));
    assert_eq!(address("/run/postgresql").socket(), Some(PathBuf::from("/run/postgresql/.s.PGSQL.5432")));
    assert_eq!(address("/run/postgresql:5433").socket(), Some(PathBuf::from("/run/postgresql/.s.PGSQL.5433")));
    assert_eq!(address("./run").socket(), Some(PathBuf::from("etc/./run/.s.PGSQL.5432")));
}

#[test]
fn names_are_sql_identifiers() {
    let text = table_with(
        "name = 'public.\"Orders\"'\ntenant = { column = 'Account_ID' }",
        "'\"E Mail\"' = { type = 'text' }\nPHONE = { type = 'text' }",
    );
    let settings = parsed(&text).unwrap();
    let table = settings.databases[0].table("public", "Orders").unwrap();
    assert_eq!(table.tenant, TenantRule::Column("account_id".to_owned()));
    assert_eq!(*table.column("E Mail").unwrap().qualified, *"public.\"Orders\".\"E Mail\"");
    assert!(table.column("phone").is_some());
}

/// A file with one database whose control is on line 3; the table's own lines begin on line 5, its columns follow.
fn table_with(table: &str, columns: &str) -> String {
    format!(
        "[[database]]\nname = 'app'\ncontrol = 'host=db'\n[[database.table]]\n{table}\n[database.table.columns]\n{columns}\n"
    )
}

/// The same with the columns on line 8 and following.
fn columns(columns: &str) -> String {
    table_with("name = 'public.t'\ntenant = { column = 'account_id' }", columns)
}

#[test]
fn errors_name_their_line_and_column() {
    let check =
        |text: &str, expected: &str| assert_eq!(message(text), format!("etc/rowseal.toml:{expected}"), "{text}");
    check("[listen", "1:8: unclosed table, expected `]`");
    check("\n[listen]\nadress = 'x'", "3:1: unknown field `adress`, expected `address` or `tls`");
    check(
        "[lissen]\n",
        "1:2: unknown field `lissen`, expected one of `listen`, `upstream`, `admin`, `keys`, `audit`, `limits`, `database`",
    );
    check("[listen]\naddress = 'here'", "2:11: \"here\" is not an IP address and port, as in \"127.0.0.1:6432\"");
    check("[listen]\naddress = 6432", "2:11: invalid type: integer `6432`, expected a string");
    check("[listen]\ntls = { certificate = 'c' }", "2:7: missing field `key`");
    check("[upstream]\naddress = 'db'", "2:11: \"db\" is neither host:port nor the directory of a unix socket");
    check("[upstream]\naddress = 'db:0'", "2:11: \"db:0\" is neither host:port nor the directory of a unix socket");
    check(
        "[upstream]\naddress = '::1:5432'",
        "2:11: \"::1:5432\" is neither host:port nor the directory of a unix socket",
    );
    check(
        "[upstream]\ntls = 'always'",
        "2:7: unknown variant `always`, expected one of `disable`, `prefer`, `require`, `verify-full`",
    );
    check("[upstream]\nroot_certificate = 'r'", "2:20: root_certificate is used with tls = \"verify-full\" alone");
    check("[upstream]\naddress = '/run'\ntls = 'require'", "3:7: there is no TLS on a unix socket");
    check("[keys]\nprovider = 'gcp'", "2:12: unknown variant `gcp`, expected `local` or `aws`");
    check("[keys]\npool_size = 0", "2:13: must be at least 1");
    check("[keys]\nconfirm_interval = 'soon'", "2:20: \"soon\" is not a duration, as in \"60s\" or \"5m\"");
    check("[keys]\nlease = '16s'", "2:9: must be 2s to 15s");
    check("[keys]\nlease = '1s'", "2:9: must be 2s to 15s");
    check("[keys]\nconfirm_interval = '-1s'", "2:20: \"-1s\" is not a duration, as in \"60s\" or \"5m\"");
    for address in ["kms.local", "http://10.0.0.1:8080"] {
        check(&format!("[keys.aws]\nendpoint = '{address}'"), &format!("2:12: {address:?} {UNSAFE_ENDPOINT}"));
    }
    check("[keys.aws]\nzone = 'a'", "2:1: unknown field `zone`, expected one of `region`, `endpoint`, `profile`");
    check("[audit]\ndurability = 'none'", "2:14: unknown variant `none`, expected one of `relaxed`, `group`, `strict`");
    assert_eq!(parsed("[audit]\nkey = 'k/log.key'").unwrap().audit.key, Some(PathBuf::from("etc/k/log.key")));
    assert_eq!(parsed("[audit]\ndurability = 'relaxed'").unwrap().audit.durability, Durability::Relaxed);
    check("[admin]\naddress = ':1'", "2:11: \":1\" is not an IP address and port, as in \"127.0.0.1:6432\"");
}

#[test]
fn errors_of_databases_and_roles() {
    let check =
        |text: &str, expected: &str| assert_eq!(message(text), format!("etc/rowseal.toml:{expected}"), "{text}");
    check("[[database]]\n", "1:1: missing field `name`");
    check("[[database]]\nname = 'app'", "2:8: control is missing: how the proxy reaches its registry");
    check("[[database]]\nname = ''\ncontrol = ''", "2:8: a database's name is empty");
    let two = "[[database]]\nname = 'app'\ncontrol = ''\n[[database]]\nname = 'app'\ncontrol = ''";
    check(two, "5:8: database \"app\" has two entries");
    let secret = "no password here: use control_file or the environment";
    check("[[database]]\nname = 'a'\ncontrol = 'postgres://u:p@h/a'", &format!("3:11: {secret}"));
    check("[[database]]\nname = 'a'\ncontrol = 'user=u password = p'", &format!("3:11: {secret}"));
    check("[[database]]\nname = 'a'\ncontrol = ''\ncontrol_file = 'x'", "4:16: give control or control_file, not both");
    let role = |role: &str| format!("[[database]]\nname = 'a'\ncontrol = ''\n[[database.role]]\n{role}");
    check(
        &role("name = 'r'\nread = 'all'"),
        "6:8: unknown variant `all`, expected one of `open`, `mask`, `sealed`, `deny`",
    );
    check(&role("name = 'r'"), "4:1: missing field `read`");
    check(
        &role("name = 'r'\nread = 'open'\n[[database.role]]\nname = 'r'\nread = 'deny'"),
        "8:8: role \"r\" has two entries",
    );
}

#[test]
fn errors_of_tables() {
    let check =
        |text: &str, expected: &str| assert_eq!(message(text), format!("etc/rowseal.toml:{expected}"), "{text}");
    let table =
        |name: &str| table_with(&format!("name = '{name}'\ntenant = {{ session = true }}"), "a = { type = 'text' }");
    check(&table("t"), "5:8: table \"t\": a table is written with its schema, as in public.customers");
    check(
        &table("public.my table"),
        "5:8: table \"public.my table\": character ' ' needs double quotes in an identifier",
    );
    check(&table("public.\"t"), "5:8: table \"public.\\\"t\": a quoted identifier is not closed");
    check(&table("rowseal.t"), "5:8: tables of schema \"rowseal\" cannot be sealed");
    check(
        &format!(
            "{}[[database.table]]\nname = 'PUBLIC.T'\ntenant = {{ session = true }}\n",
            columns("a = { type = 'text' }")
        ),
        "10:8: table public.t has two entries",
    );
    check(&table_with("name = 'public.t'\ntenant = { session = true }", ""), "5:8: table public.t has no columns");
    let tenant = |tenant: &str| table_with(&format!("name = 'public.t'\ntenant = {tenant}"), "a = { type = 'text' }");
    let one_of = "tenant is one of { column = ... }, { session = true }, { name = ... }";
    check(&tenant("{ }"), &format!("6:10: {one_of}"));
    check(&tenant("{ column = 'a', name = 'b' }"), &format!("6:10: {one_of}"));
    check(&tenant("{ session = false }"), "6:22: session is true or absent");
    check(&tenant("{ name = '_rowseal' }"), "6:19: tenant \"_rowseal\" is reserved");
    check(&tenant("{ name = '' }"), "6:19: a tenant's name is empty");
    check(&tenant("{ account = 'a' }"), "6:12: unknown field `account`, expected one of `column`, `session`, `name`");
    check(
        &tenant("{ column = 'a' }"),
        "8:1: the column that names the tenant cannot be sealed: the proxy must read it",
    );
}

#[test]
fn errors_of_columns() {
    let check = |text: &str, expected: &str| {
        assert_eq!(message(&columns(text)), format!("etc/rowseal.toml:{expected}"), "{text}")
    };
    check("a = { type = 'text' }\na = { type = 'text' }", "9:1: duplicate key");
    check("a = { type = 'text' }\nA = { type = 'text' }", "9:1: column \"a\" has two entries");
    check("ctid = { type = 'text' }", "8:1: column \"ctid\" belongs to the server");
    check("'t.a' = { type = 'text' }", "8:1: column \"t.a\": a column is written without its table");
    check("a = { equality = 'tenant' }", "8:5: missing field `type`");
    check(
        "a = { type = 'text', equalty = 'tenant' }",
        "8:22: unknown field `equalty`, expected one of `type`, `equality`, `join_group`, `binding`, `padding`, `mask`",
    );
    check("a = { type = 'text', equality = 'all' }", "8:33: unknown variant `all`, expected `tenant` or `global`");
    check("a = { type = 'json', equality = 'tenant' }", "8:33: json has no equality, in Postgres neither; jsonb has");
    check("a = { type = 'json[]', equality = 'tenant' }", "8:35: json has no equality, in Postgres neither; jsonb has");
    check("a = { type = 'interval day to second' }", "8:14: type \"interval day to second\" cannot be sealed");
    check("a = { type = 'text[][]' }", "8:14: type \"text[][]\" cannot be sealed");
    check("a = { type = 'text', join_group = 'g' }", "8:35: join_group needs equality");
    check("a = { type = 'text', binding = '' }", "8:32: a binding is empty");
    check(
        "a = { type = 'text', binding = 'x' }\nb = { type = 'text', binding = 'x' }",
        "9:1: public.t.b and public.t.a have the same binding \"x\"",
    );
    check("a = { type = 'text', padding = 'much' }", "8:32: padding is \"none\", \"padme\" or a number of bytes");
    check("a = { type = 'text', padding = 0 }", "8:32: a fixed padding is 1 to 1048576 bytes");
    check(
        "a = { type = 'text', mask = {} }",
        "8:29: mask is one of { keep_last = n }, { keep_first = n }, { fixed = ... }, { hash = true }",
    );
    check("a = { type = 'text', mask = { hash = false } }", "8:38: hash is true or absent");
    check(
        "a = { type = 'varchar(31)', mask = { hash = true } }",
        "8:36: a hash has 32 characters, more than character varying(31)",
    );
    check("a = { type = 'text', mask = { keep_last = -1 } }", "8:43: invalid value: integer `-1`, expected u32");
    check(
        "a = { type = 'date', mask = { keep_last = 4 } }",
        "8:29: a mask gives text: other types are masked as NULL (leave mask out)",
    );
    check(
        "a = { type = 'varchar(3)', mask = { fixed = 'hidden' } }",
        "8:35: the fixed text is longer than character varying(3)",
    );
    let group = |a: &str, b: &str| format!("a = {{ {a}, join_group = 'g' }}\nb = {{ {b}, join_group = 'g' }}");
    check(
        &group("type = 'text', equality = 'tenant'", "type = 'int4', equality = 'tenant'"),
        "9:1: public.t.b has another type than public.t.a of join group \"g\"",
    );
    check(
        &group("type = 'text', equality = 'tenant'", "type = 'text', equality = 'global'"),
        "9:1: public.t.b has another equality than public.t.a of join group \"g\"",
    );
    let unknown = message(&columns("a = { type = 'txet' }"));
    assert!(unknown.starts_with("etc/rowseal.toml:8:14: ") && unknown.contains("txet"), "{unknown}");
}

#[test]
fn columns_are_counted_in_characters() {
    assert!(message("[keys]\naws = { region = 'ä', profil = 'b' }").starts_with("etc/rowseal.toml:2:23: "));
}

#[test]
fn variables_win_over_the_file() {
    let variables = |name: &str| {
        let value = match name {
            "ROWSEAL_LISTEN_ADDRESS" => "0.0.0.0:7000",
            "ROWSEAL_LISTEN_TLS_CERTIFICATE" | "ROWSEAL_LISTEN_TLS_KEY" => "/etc/pem",
            "ROWSEAL_UPSTREAM_TLS" => "verify-full",
            "ROWSEAL_KEYS_POOL_SIZE" => "7",
            "ROWSEAL_KEYS_AUTO_REGISTER" => "true",
            "ROWSEAL_AUDIT_DURABILITY" => "strict",
            "ROWSEAL_ADMIN_CONSOLE" => "dba, Some One,",
            "ROWSEAL_DATABASE_APP_CONTROL" => "postgres://rowseal:secret@db/app",
            "ROWSEAL_DATABASE_APP_READ" => "deny",
            _ => return None,
        };
        Some(value.to_owned())
    };
    let settings = parse(DESIGN, Path::new("rowseal.toml"), &variables).unwrap();
    assert_eq!(settings.listen.address.port(), 7000);
    assert_eq!(settings.listen.tls.unwrap().key, PathBuf::from("/etc/pem"));
    assert_eq!(settings.upstream.tls, UpstreamTls::VerifyFull);
    assert_eq!(settings.keys.pool_size, 7);
    assert!(settings.keys.auto_register);
    assert_eq!(settings.audit.durability, Durability::Strict);
    assert_eq!(settings.console, ["dba", "Some One"]);
    assert_eq!(settings.databases[0].control, "postgres://rowseal:secret@db/app");
    assert_eq!(settings.databases[0].read, Read::Deny);
    assert_eq!(variable_for_database("my-app", "control"), "ROWSEAL_DATABASE_MY_APP_CONTROL");
}

#[test]
fn nobody_may_use_the_console_unless_named() {
    assert!(parsed(DESIGN).unwrap().console.is_empty());
    let named = |list| parsed(&DESIGN.replace("address = \"127.0.0.1:9432\"", &format!("console = {list}")));
    assert_eq!(named("['dba']").unwrap().console, ["dba"]);
    let wrong = named("['dba', '']").unwrap_err().to_string();
    assert!(wrong.contains("the name of a role is empty"), "{wrong}");
}

#[test]
fn errors_in_variables_name_the_variable() {
    let check = |name: &'static str, value: &'static str, expected: &str| {
        let error = parse(DESIGN, Path::new("rowseal.toml"), &|wanted| (wanted == name).then(|| value.to_owned()));
        assert_eq!(error.unwrap_err().to_string(), format!("environment variable {name}: {expected}"));
    };
    check("ROWSEAL_LISTEN_ADDRESS", "x", "\"x\" is not an IP address and port, as in \"127.0.0.1:6432\"");
    check("ROWSEAL_KEYS_POOL_SIZE", "many", "invalid digit found in string");
    check("ROWSEAL_KEYS_WRAPPING", "none", "unknown variant `none`, expected `direct` or `hierarchical`");
    check("ROWSEAL_LISTEN_TLS_KEY", "k", "ROWSEAL_LISTEN_TLS_CERTIFICATE must be set too");
}

#[test]
fn a_control_string_may_stand_in_a_file_of_its_own() {
    let directory = tempfile::TempDir::new().unwrap();
    std::fs::write(directory.path().join("control"), "host=db password=p\n").unwrap();
    let text = "[[database]]\nname = 'app'\ncontrol_file = 'control'";
    let settings = parse(text, &directory.path().join("rowseal.toml"), &no_variables).unwrap();
    assert_eq!(settings.databases[0].control, "host=db password=p");
    let variable = |name: &str| (name == "ROWSEAL_DATABASE_APP_CONTROL").then(|| "host=other".to_owned());
    let settings = parse(text, Path::new("rowseal.toml"), &variable).unwrap();
    assert_eq!(settings.databases[0].control, "host=other");
    assert!(message(text).starts_with("etc/rowseal.toml:3:16: \"control\" cannot be read: "));
}

#[test]
fn plaintext_keys_come_through_tls_or_from_this_machine() {
    let safe =
        ["https://kms.eu-central-1.amazonaws.com", "http://127.0.0.1:8080", "http://localhost", "http://[::1]:1/x"];
    assert!(safe.into_iter().all(is_safe_endpoint));
    let others =
        ["", "https://", "kms.local", "http://kms.local", "http://localhost.evil.com", "http://127.0.0.1:1@evil:1"];
    assert!(!others.into_iter().any(is_safe_endpoint));
}

/// Text, mode and roots of a control string, or the error.
fn control(text: &str, tls: &str) -> String {
    let roots = if tls == "verify-full" { "root_certificate = 'roots.pem'" } else { "" };
    let upstream = parsed(&format!("[upstream]\ntls = '{tls}'\n{roots}")).unwrap().upstream;
    match Control::read(text, &upstream, Path::new("etc")) {
        Ok(Control { text, tls, root_certificate: None }) => format!("{} {tls:?}", text.trim_end()),
        Ok(Control { text, tls, root_certificate: Some(roots) }) => {
            format!("{} {tls:?} {}", text.trim_end(), roots.display())
        }
        Err(error) => error.to_string(),
    }
}

#[test]
fn words_about_tls_are_taken_out_of_control_strings() {
    let check = |text: &str, tls: &str, expected: &str| assert_eq!(control(text, tls), expected, "{text}");
    // What a string leaves open is as [upstream] says.
    check("host=db", "prefer", "host=db Prefer");
    check("postgres://db/app?user=u", "verify-full", "postgres://db/app?user=u VerifyFull etc/roots.pem");
    check("host=db sslrootcert=/r.pem", "require", "host=db Require /r.pem");
    check("host=db sslmode=verify-full", "verify-full", "host=db VerifyFull etc/roots.pem");
    check("host=db sslmode=require", "verify-full", "host=db Require etc/roots.pem");
    check("host=db sslmode=verify-full sslrootcert=system", "verify-full", "host=db VerifyFull");
    // Spaces, quotes, backslashes; the last of several counts.
    check("sslmode = 'disable'  host=db user='a b'", "require", "host=db user='a b' Disable");
    check(r"host=db sslrootcert='a\' b' sslmode=require", "prefer", "host=db Require etc/a' b");
    check("password='sslmode=disable' sslmode=require", "prefer", "password='sslmode=disable' Require");
    check("host=db sslmode=disable sslmode=require", "prefer", "host=db Require");
    check("sslmode='disable", "require", "sslmode='disable Require");
    // URLs: in any place, percent-encoded, no part of the password.
    check("postgres://db/app?sslmode=require", "prefer", "postgres://db/app Require");
    check("postgresql://db?a=b&ssl%6dode=disable&c=d", "require", "postgresql://db?a=b&c=d Disable");
    check("postgres://u:p?sslmode=x@db/app", "require", "postgres://u:p?sslmode=x@db/app Require");
    check("postgres://u@db/?sslrootcert=a%20b", "require", "postgres://u@db/ Require etc/a b");
}

#[test]
fn words_about_tls_that_cannot_be_followed_are_refused_where_they_stand() {
    assert_eq!(control("sslmode=verify-ca", "require"), ControlError::VerifyCa.to_string());
    assert_eq!(control("postgres://db/?sslmode", "require"), ControlError::Mode.to_string());
    assert_eq!(control("sslmode=Require", "require"), ControlError::Mode.to_string());
    assert_eq!(control("sslrootcert=a", "prefer"), ControlError::UnusedRoots.to_string());
    assert_eq!(control("sslrootcert=''", "require"), ControlError::NoRoots.to_string());
    assert_eq!(control("sslrootcert=system", "require"), ControlError::SystemRoots.to_string());
    let text = "[[database]]\nname = 'app'\ncontrol = 'host=db sslmode=verify-ca'\n";
    let expected = "etc/rowseal.toml:3:11: the control of database \"app\": sslmode=verify-ca is not supported: \
        write verify-full, which checks the host name too";
    assert_eq!(message(text), expected);
}
