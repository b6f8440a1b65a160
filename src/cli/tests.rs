use std::path::Path;

use clap::CommandFactory;

use super::*;
use crate::admin::check::{Finding, Live, Severity, findings};

const POLICY: &str = "
[[database]]
name = 'app'
control = 'host=db'
[[database.table]]
name = 'public.t'
tenant = { column = 'account_id' }
[database.table.columns]
email = { type = 'text' }
";

fn live(table: &str, column: &str, domain: Option<&str>) -> Live {
    Live {
        schema: "public".to_owned(),
        table: table.to_owned(),
        column: column.to_owned(),
        domain: domain.map(str::to_owned),
        declared: domain.map_or("text".to_owned(), |domain| format!("rowseal.{domain}")),
        is_external: true,
        is_partition: false,
    }
}

#[track_caller]
fn check(unsealed: &str, live: &[Live], expected: &[(Severity, &str)]) {
    let text = POLICY.replace("name = 'app'", &format!("name = 'app'\nunsealed = '{unsealed}'"));
    let settings = config::parse(&text, Path::new("rowseal.toml"), &|_| None).unwrap();
    let expected: Vec<Finding> = expected
        .iter()
        .map(|(severity, message)| Finding { severity: *severity, message: (*message).to_owned() })
        .collect();
    assert_eq!(findings(&settings.databases[0], live), expected);
}

#[test]
fn the_policy_is_held_against_the_live_columns() {
    use Severity::{Error, Warning};
    let tenant = live("t", "account_id", None);
    let fits = live("t", "email", Some("text"));
    check("refuse", &[tenant.clone(), fits.clone()], &[]);
    let missing = "table public.t does not exist yet: created through the proxy, it will be sealed";
    check("refuse", &[], &[(Warning, missing)]);
    check("refuse", std::slice::from_ref(&tenant), &[(Warning, "column public.t.email does not exist yet")]);
    let no_tenant = "table public.t has no column account_id, which should name the tenant";
    check("refuse", std::slice::from_ref(&fits), &[(Error, no_tenant)]);
    let plain = live("t", "email", None);
    let refused = "column public.t.email is plaintext (text): statements on it are refused";
    check("refuse", &[tenant.clone(), plain.clone()], &[(Error, refused)]);
    let passes = "column public.t.email is plaintext (text) and passes as it is";
    check("pass", &[tenant.clone(), plain], &[(Warning, passes)]);
    let wrong = "column public.t.email has type rowseal.int4, the policy needs rowseal.text";
    check("refuse", &[tenant.clone(), live("t", "email", Some("int4"))], &[(Error, wrong)]);
    let storage = "column public.t.email lacks STORAGE EXTERNAL: the server tries to compress its cells";
    check("refuse", &[tenant.clone(), Live { is_external: false, ..fits.clone() }], &[(Warning, storage)]);
    let stray = "column public.other.x is sealed but has no entry in the policy";
    check("refuse", &[tenant.clone(), fits.clone(), live("other", "x", Some("text"))], &[(Error, stray)]);
    let partition = Live { is_partition: true, ..live("t_2026", "email", Some("text")) };
    check("refuse", &[tenant, fits, partition], &[]);
}

fn exit_code(arguments: &[&str]) -> String {
    let arguments = std::iter::once(&"rowseal").chain(arguments).map(OsString::from);
    match super::arguments(arguments) {
        Ok(arguments) => format!("{:?}", run(arguments)),
        Err(code) => format!("{code:?}"),
    }
}

#[test]
fn the_arguments_are_consistent() {
    Arguments::command().debug_assert();
}

#[test]
fn exit_codes_tell_usage_from_failure() {
    let code = |code: u8| format!("{:?}", ExitCode::from(code));
    assert_eq!(exit_code(&["--help"]), code(0));
    assert_eq!(exit_code(&["--version"]), code(0));
    assert_eq!(exit_code(&[]), code(64));
    assert_eq!(exit_code(&["sreve"]), code(64));
    assert_eq!(exit_code(&["key", "rotate", "acme"]), code(64));
    assert_eq!(exit_code(&["check", "--config", "/nowhere/rowseal.toml"]), code(64));
    assert_eq!(exit_code(&["audit", "verify", "--head", "x"]), code(64));
    assert_eq!(exit_code(&["audit", "verify", "--directory", "/nowhere"]), code(1));
}

#[test]
fn a_log_is_verified_and_shown_by_its_directory() {
    let directory = tempfile::TempDir::new().unwrap();
    let path = directory.path().to_str().unwrap();
    drop(crate::audit::Audit::open(directory.path(), crate::audit::Durability::Group).unwrap());
    let code = |code: u8| format!("{:?}", ExitCode::from(code));
    assert_eq!(exit_code(&["audit", "verify", "--directory", path]), code(0));
    assert_eq!(exit_code(&["audit", "show", "--tenant", "acme", "--directory", path]), code(0));
    assert_eq!(exit_code(&["audit", "verify", path]), code(0));
    assert_eq!(exit_code(&["audit", "key", "--directory", path]), code(0));
    assert_eq!(exit_code(&["audit", "prove", "1", "--directory", path]), code(1));
    let key = crate::audit::verifier(directory.path()).unwrap().to_string();
    let kept = format!("{path}/checkpoint");
    assert_eq!(exit_code(&["audit", "verify", path, "--key", &key, "--against", &kept]), code(0));
    let other = tempfile::TempDir::new().unwrap();
    drop(crate::audit::Audit::open(other.path(), crate::audit::Durability::Group).unwrap());
    let other = other.path().to_str().unwrap();
    assert_eq!(exit_code(&["audit", "verify", other, "--key", &key]), code(1));
    assert_eq!(exit_code(&["audit", "verify", other, path, "--key", &key, "--against", &kept]), code(0));
    assert_eq!(exit_code(&["audit", "verify", other, "--against", &kept]), code(1));
    assert_eq!(exit_code(&["audit", "verify", other, "--against", &kept, "--allow-missing"]), code(0));
    assert_eq!(exit_code(&["audit", "verify", path, "--key", "name+key"]), code(64));
    assert_eq!(exit_code(&["audit", "verify", "--proof", &kept, "--key", &key]), code(1));
    assert_eq!(exit_code(&["audit", "verify", "--proof", &kept]), code(64));
    let head = format!("3:{}", "a".repeat(64));
    assert_eq!(exit_code(&["audit", "verify", "--head", &head, "--directory", path]), code(1));
}

/// A policy file over a running server, and the context of a subcommand on it.
fn on(cluster: &crate::setup::cluster::Cluster, directory: &Path) -> Context {
    let control = cluster.url("postgres");
    let config = directory.join("rowseal.toml");
    std::fs::write(&config, POLICY.replace("host=db", &control)).unwrap();
    Context { config, database: None, output: Output::new(true) }
}

fn register(name: &str) -> tenant::Tenant {
    let arguments = Arguments::try_parse_from(["rowseal", "tenant", "register", name]).unwrap();
    let Command::Tenant(command) = arguments.command else { panic!("another command") };
    command
}

#[tokio::test]
async fn a_database_is_set_up_checked_and_given_tenants() {
    let Some(cluster) = crate::setup::cluster::Cluster::start().await else { return };
    let directory = tempfile::TempDir::new().unwrap();
    let context = on(&cluster, directory.path());
    let client = cluster.connect("postgres").await;

    assert!(matches!(check::run(&context).await, Err(Failure::Shown)), "not installed yet");
    assert!(matches!(tenant::run(register("acme"), &context).await, Err(Failure::Failed(_))));
    status::run(&context).await.unwrap();
    setup::run(&context).await.unwrap();
    setup::run(&context).await.unwrap();
    check::run(&context).await.unwrap();
    client.batch_execute("UPDATE rowseal.schema_version SET version = -version WHERE version > 1").await.unwrap();
    assert!(matches!(check::run(&context).await, Err(Failure::Shown)), "of an older release");
    client.batch_execute("UPDATE rowseal.schema_version SET version = -version WHERE version < 1").await.unwrap();

    let plain = "CREATE TABLE public.t (account_id text, email text)";
    client.batch_execute(plain).await.unwrap();
    assert!(matches!(check::run(&context).await, Err(Failure::Shown)), "plaintext");
    let sealed = "DROP TABLE t; CREATE TABLE public.t (account_id text, email rowseal.text);
        ALTER TABLE t ALTER email SET STORAGE EXTERNAL";
    client.batch_execute(sealed).await.unwrap();
    check::run(&context).await.unwrap();
    client.batch_execute("CREATE TABLE stray (x rowseal.date)").await.unwrap();
    assert!(matches!(check::run(&context).await, Err(Failure::Shown)), "sealed without an entry");

    tenant::run(register("acme"), &context).await.unwrap();
    tenant::run(register("acme"), &context).await.unwrap();
    assert!(matches!(tenant::run(register("_rowseal"), &context).await, Err(Failure::Refused(_))));
    assert!(matches!(tenant::run(register("a\nb"), &context).await, Err(Failure::Refused(_))));
    tenant::run(tenant::Tenant::List, &context).await.unwrap();
    tenant::run(tenant::Tenant::Show { name: "acme".to_owned(), count: true }, &context).await.unwrap();
    let missing = tenant::Tenant::Show { name: "globex".to_owned(), count: false };
    assert!(matches!(tenant::run(missing, &context).await, Err(Failure::Failed(_))));
    status::run(&context).await.unwrap();
}

#[test]
fn the_settings_reach_the_server() {
    let outside = |text: &str| {
        let settings = config::parse(text, Path::new("rowseal.toml"), &|_| None).unwrap();
        serve::server_settings(&settings)
    };
    let text = "[upstream]\naddress = '/run/postgresql:5433'\ntls = 'disable'\n[limits]\nconnections_max = 7";
    let settings = outside(text).unwrap();
    assert_eq!(settings.upstream.address.to_string(), "/run/postgresql/.s.PGSQL.5433");
    assert_eq!((settings.sessions_max, settings.drain_timeout.as_secs()), (7, 30));
    assert!(outside("").is_ok());
    assert!(outside("[upstream]\ntls = 'require'").is_ok());
    assert!(outside("[listen]\ntls = { certificate = '/nowhere', key = '/nowhere' }").is_err());
}

#[test]
fn the_settings_reach_the_keys() {
    let text = "[keys]\npool_size = 5000\nkms_concurrency = 3\nconfirm_interval = '2m'\ncache_bytes_max = 70000";
    let settings = config::parse(text, Path::new("rowseal.toml"), &|_| None).unwrap();
    let keys = serve::keys_settings(&settings);
    assert_eq!((keys.pool_target, keys.pool_target_max), (5000, 5000));
    assert_eq!((keys.unwraps_max, keys.generates_max, keys.cache_bytes_max), (3, 3, 70000));
    assert_eq!(keys.confirm_interval.as_secs(), 120);
}

#[test]
fn a_control_string_without_a_host_needs_no_root_certificates() {
    let upstream = "[upstream]\naddress = 'db:5432'\ntls = 'verify-full'\nroot_certificate = 'absent.pem'\n";
    let prepared = |control: &str| {
        let text = upstream.to_owned() + &POLICY.replace("'host=db'", &format!("{control:?}"));
        let settings = config::parse(&text, Path::new("rowseal.toml"), &|_| None).unwrap();
        connect::Control::of(&settings, &settings.databases[0]).map(|_| ()).map_err(|error| format!("{error:#}"))
    };
    for local in ["postgres:///app?user=rowseal", "dbname=app", "host=''", "host=/run/postgresql sslmode=verify-full"] {
        assert_eq!(prepared(local), Ok(()), "{local}");
    }
    for remote in ["host=db", "postgres://db/app", "hostaddr=127.0.0.1", "host=/run/postgresql,db"] {
        let error = prepared(remote).unwrap_err();
        assert!(error.starts_with("the control of database \"app\": cannot read root certificates from"), "{error}");
    }
    assert!(prepared("host=db sslmode=require sslrootcert=absent").is_err());
    assert_eq!(prepared("host=db sslmode=prefer"), Ok(()));
}
