//! TLS of the control connections: real servers with certificates, the real binary, both ways to say how.
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Output;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use crate::support::guard::poll;
use crate::support::postgres::{Cluster, Version};
use crate::support::proxy::Site;

const POLICY: &str = "[[database]]\nname = \"app\"\ncontrol = \"{control}/app\"\n\n[[database.table]]\n\
    name = \"public.users\"\ntenant = { column = \"account_id\" }\n\n[database.table.columns]\n\
    email = { type = \"text\", equality = \"tenant\" }\n";
const TABLE: &str = "CREATE TABLE users (id int8 PRIMARY KEY, account_id int8 NOT NULL, email rowseal.text);
    ALTER TABLE users ALTER email SET STORAGE EXTERNAL; GRANT ALL ON users TO PUBLIC";
/// The proxy's role logs in with a password, so that its login can be bound to the certificate.
const TLS_ALONE: &str =
    "local all all trust\nhostssl all rowseal all scram-sha-256\nhostssl all all all trust\nhost all all all reject\n";
const TLS_OR_NOT: &str = "local all all trust\nhost all rowseal all scram-sha-256\nhost all all all trust\n";
/// The encryption of the proxy's own connections.
const CONTROL: &str = "select coalesce(string_agg(ssl::text, ' '), '') from pg_stat_ssl join pg_stat_activity using (pid) \
    where application_name = 'rowseal'";

/// A server with a certificate for `localhost`, of an authority of its own.
struct Stage {
    cluster: Cluster,
    site: Site,
}

impl Stage {
    fn start(hba: &str, tls: &str) -> Stage {
        let cluster = Cluster::start(Version::Any);
        cluster.psql("postgres", "CREATE ROLE rowseal LOGIN PASSWORD 'secret'");
        cluster.createdb("app");
        cluster.psql("app", "GRANT CREATE ON DATABASE app TO rowseal");
        let mut site = Site::new(&cluster, POLICY);
        let authority = Authority::new("ours");
        fs::write(site.path().join("root.pem"), &authority.pem).unwrap();
        fs::write(site.path().join("other.pem"), Authority::new("another").pem).unwrap();
        authority.protect(&cluster);
        fs::write(cluster.data_dir().join("pg_hba.conf"), hba).unwrap();
        cluster.psql("postgres", "ALTER SYSTEM SET ssl = on");
        cluster.psql("postgres", "SELECT pg_reload_conf()");
        poll("TLS", || (cluster.psql("postgres", "SHOW ssl") == "on").then_some(()));
        let upstream = format!("localhost:{}", cluster.port());
        site.set_environment([
            ("PGPASSWORD", "secret"),
            ("ROWSEAL_UPSTREAM_TLS", tls),
            ("ROWSEAL_UPSTREAM_ADDRESS", &*upstream),
        ]);
        let mut stage = Stage { cluster, site };
        stage.control("localhost", "");
        stage
    }

    /// The control string: where to, and further words.
    fn control(&mut self, host: &str, words: &str) {
        let control = format!("host={host} port={} user=rowseal dbname=app {words}", self.cluster.port());
        self.site.set_environment([("ROWSEAL_DATABASE_APP_CONTROL", &*control)]);
    }

    fn roots(&mut self, file: &str) {
        self.site.set_environment([("ROWSEAL_UPSTREAM_ROOT_CERTIFICATE", file)]);
    }

    /// Every subcommand that goes to the database, then a sealed value there and back.
    fn works(&self) {
        self.site.run_ok(&["setup"]);
        self.cluster.psql("app", TABLE);
        self.site.run_ok(&["tenant", "register", "1"]);
        assert!(self.site.run_ok(&["tenant", "list"]).contains("active"));
        self.site.run_ok(&["check"]);
        self.site.run_ok(&["status"]);
        let proxy = self.site.serve();
        poll("the sealed table", || self.cluster.psql_at(proxy.address(), "app", "SELECT email FROM users").ok());
        let sql = "INSERT INTO users VALUES (1, 1, 'ann@example.com');
            SELECT email FROM users WHERE account_id = 1 AND email = 'ann@example.com'";
        assert_eq!(self.cluster.psql_at(proxy.address(), "app", sql).unwrap(), "ann@example.com");
        assert!(self.cluster.psql("app", "SELECT email FROM users").starts_with("\\x"));
        assert!(!self.cluster.psql("postgres", CONTROL).contains("false"));
    }

    /// Each subcommand, and the proxy in its log, name the database and these words.
    #[track_caller]
    fn fails(&self, words: &[&str]) {
        for arguments in [&["setup"][..], &["check"], &["status"], &["tenant", "list"]] {
            let complaint = complaint(&self.site.run(arguments));
            for word in ["\"app\""].iter().chain(words) {
                assert!(complaint.contains(word), "{arguments:?} said {complaint}");
            }
        }
        let proxy = self.site.serve();
        let log = poll("the complaint of the proxy", || {
            Some(proxy.log()).filter(|log| log.contains("the database cannot be served yet"))
        });
        for word in ["app"].iter().chain(words) {
            assert!(log.contains(word), "the proxy said {log}");
        }
        let refused = self.cluster.psql_at(proxy.address(), "app", "SELECT 1").unwrap_err();
        assert!(refused.contains("FATAL"), "{refused}");
    }
}

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new(name: &str) -> Authority {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { issuer: Issuer::new(params, key), pem }
    }

    /// Gives the server a certificate; it takes it up when TLS is switched on.
    fn protect(&self, cluster: &Cluster) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        for (name, text) in [("server.crt", certificate.pem()), ("server.key", key.serialize_pem())] {
            let path: PathBuf = cluster.data_dir().join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
            give(&path, &cluster.data_dir());
        }
    }
}

/// To the owner of another file.
fn give(path: &Path, like: &Path) {
    let owner = fs::metadata(like).unwrap();
    chown(path, Some(owner.uid()), Some(owner.gid())).unwrap();
}

#[track_caller]
fn complaint(output: &Output) -> String {
    assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_server_that_takes_tls_alone_is_reached_with_the_policys_setting() {
    Stage::start(TLS_ALONE, "require").works();
}

#[test]
fn verified_certificates_and_a_login_bound_to_them() {
    let mut stage = Stage::start(TLS_ALONE, "verify-full");
    stage.roots("root.pem");
    stage.control("localhost", "channel_binding=require");
    stage.works();
}

#[test]
fn a_certificate_of_another_root_is_refused() {
    let mut stage = Stage::start(TLS_ALONE, "verify-full");
    stage.roots("other.pem");
    stage.fails(&["TLS handshake", "invalid peer certificate: UnknownIssuer"]);
}

#[test]
fn a_server_that_takes_tls_alone_turns_clear_text_away() {
    Stage::start(TLS_ALONE, "disable").fails(&["no encryption"]);
}

#[test]
fn the_control_string_has_the_last_word() {
    let mut stage = Stage::start(TLS_ALONE, "require");
    stage.control("localhost", "sslmode=disable");
    stage.fails(&["no encryption"]);
    stage.control("localhost", "sslmode='verify-full' sslrootcert=other.pem");
    stage.fails(&["UnknownIssuer"]);
    // The certificate is for localhost: its chain is good, its name is not.
    stage.control("127.0.0.1", "sslmode=verify-full sslrootcert=root.pem");
    stage.fails(&["invalid peer certificate: certificate not valid for name"]);
    stage.control("127.0.0.1", "sslmode=require sslrootcert=other.pem");
    stage.fails(&["UnknownIssuer"]);
    stage.control("127.0.0.1", "sslmode=require sslrootcert=root.pem");
    stage.site.run_ok(&["setup"]);
    let port = stage.cluster.port();
    let url = format!("postgres://rowseal@localhost:{port}/app?sslmode=verify-full&sslrootcert=other.pem");
    stage.site.set_environment([("ROWSEAL_DATABASE_APP_CONTROL", &*url)]);
    stage.fails(&["UnknownIssuer"]);
    let address = format!("hostaddr=127.0.0.1 port={port} user=rowseal dbname=app sslmode=require");
    stage.site.set_environment([("ROWSEAL_DATABASE_APP_CONTROL", &*address)]);
    stage.site.run_ok(&["check"]);
    stage.site.set_environment([("ROWSEAL_DATABASE_APP_CONTROL", &*url.replace("other", "root"))]);
    stage.works();
}

#[test]
fn a_control_string_that_asks_for_less_or_for_the_unknown_is_an_error() {
    let mut stage = Stage::start(TLS_ALONE, "require");
    for (words, expected) in [
        ("sslmode=verify-ca", "sslmode=verify-ca is not supported"),
        ("sslmode=allow", "sslmode is disable, prefer, require or verify-full"),
        ("sslmode=prefer sslrootcert=root.pem", "sslrootcert is used with sslmode=verify-full or require alone"),
        ("sslcert=client.pem", "unknown option `sslcert`"),
        ("sslmode=verify-full sslrootcert=absent.pem", "cannot read root certificates from"),
    ] {
        stage.control("localhost", words);
        for arguments in [["setup"], ["serve"]] {
            let complaint = complaint(&stage.site.run(&arguments));
            assert!(complaint.contains(expected) && complaint.contains("\"app\""), "{words}: {complaint}");
        }
    }
}

#[test]
fn no_control_connection_is_in_clear_text_where_tls_is_required() {
    let stage = Stage::start(TLS_OR_NOT, "require");
    stage.site.run_ok(&["setup"]);
    stage.cluster.psql("app", TABLE);
    let _proxy = stage.site.serve();
    let connected = || Some(stage.cluster.psql("postgres", CONTROL)).filter(|found| found.matches(' ').count() >= 1);
    let before = poll("the control connections", connected);
    assert!(!before.contains("false"), "{before}");
    // They are opened again as they were before.
    let lost = "select pg_terminate_backend(pid, 10000) from pg_stat_activity where application_name = 'rowseal'";
    stage.cluster.psql("postgres", lost);
    let after = poll("the control connections after their loss", connected);
    assert!(!after.contains("false"), "{after}");
}

#[test]
fn a_unix_socket_has_no_tls_whatever_is_asked_for() {
    let mut stage = Stage::start(TLS_ALONE, "require");
    let directory = stage.cluster.socket_dir().display().to_string();
    for words in ["", "sslmode=prefer", "sslmode=require", "sslmode=verify-full"] {
        stage.control(&directory, words);
        stage.site.run_ok(&["setup"]);
    }
}
