//! The keyring file.
use std::collections::HashSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use rowseal::keys::kms::local::{KeyringError, LocalKms};
use rowseal::keys::kms::{Kms, KmsErrorClass};

use super::suite::{class, context, suite, tags};

fn ring() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keyring.toml");
    (folder, path)
}

fn mode(path: &PathBuf) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[tokio::test]
async fn keyring_does_what_a_kms_does() {
    let (_folder, path) = ring();
    assert_eq!(suite(&LocalKms::open_or_create(&path).unwrap()).await, Vec::<String>::new());
    assert_eq!(mode(&path), 0o600);
}

#[tokio::test]
async fn keys_are_there_after_a_restart() {
    let (_folder, path) = ring();
    let first = LocalKms::open_or_create(&path).unwrap();
    let key = first.create_key(&tags("acme")).await.unwrap();
    let made = first.generate_data_key(&key, &context("acme")).await.unwrap();
    drop(first);
    let second = LocalKms::open(&path).unwrap();
    let (opened, _) = second.decrypt(&key, &made.blob, &context("acme")).await.unwrap();
    assert_eq!(opened.as_slice(), made.plaintext.expose());
    assert_eq!(second.describe(&key).await.unwrap().tag("rowseal:tenant"), Some("acme"));
}

#[test]
fn a_keyring_that_others_can_read_is_refused_with_the_remedy() {
    let (_folder, path) = ring();
    drop(LocalKms::open_or_create(&path).unwrap());
    for mode in [0o640, 0o604, 0o620, 0o644] {
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let Err(error) = LocalKms::open(&path) else { panic!("opened with mode {mode:o}") };
        assert!(matches!(error, KeyringError::Permissions { .. }));
        let text = error.to_string();
        assert!(text.contains(&format!("run: chmod 600 {}", path.display())), "{text}");
        assert!(text.contains(&format!("mode {mode:04o}")), "{text}");
    }
    fs::set_permissions(&path, Permissions::from_mode(0o400)).unwrap();
    assert!(LocalKms::open(&path).is_ok());
}

#[tokio::test]
async fn permissions_that_are_opened_later_stop_the_keyring() {
    let (_folder, path) = ring();
    let kms = LocalKms::open_or_create(&path).unwrap();
    let key = kms.create_key(&tags("acme")).await.unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    assert_eq!(class(kms.generate_data_key(&key, &context("acme")).await), KmsErrorClass::Transient);
}

#[test]
fn errors_hold_nothing_of_the_file() {
    let (_folder, path) = ring();
    assert!(matches!(LocalKms::open(&path), Err(KeyringError::Missing(_))));
    let broken = [
        "version = 1\n[[key]]\nmaterial = CANARY",
        "version = 2",
        "version = 1\n[[key]]\narn = \"a\"\nmaterial = \"CANARY\"\nstate = { is = \"enabled\" }",
        "version = 1\nCANARY = 1",
    ];
    for content in broken {
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        let Err(error) = LocalKms::open(&path) else { panic!("opened {content}") };
        assert!(matches!(error, KeyringError::Malformed(_)), "{content}: {error}");
        assert!(!format!("{error} {error:?}").contains("CANARY"));
    }
}

#[tokio::test]
async fn what_one_process_does_another_sees() {
    let (_folder, path) = ring();
    let proxy = LocalKms::open_or_create(&path).unwrap();
    let admin = LocalKms::open_or_create(&path).unwrap();
    let key = admin.create_key(&tags("acme")).await.unwrap();
    let made = proxy.generate_data_key(&key, &context("acme")).await.unwrap();
    admin.disable(&key).await.unwrap();
    assert_eq!(class(proxy.decrypt(&key, &made.blob, &context("acme")).await), KmsErrorClass::Disabled);
    admin.enable(&key).await.unwrap();
    assert!(proxy.decrypt(&key, &made.blob, &context("acme")).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_key_is_lost_when_many_register_at_once() {
    let (_folder, path) = ring();
    let tasks: Vec<_> = (0..4)
        .map(|process| {
            let kms = LocalKms::open_or_create(&path).unwrap();
            tokio::spawn(async move {
                let mut keys = Vec::new();
                for n in 0..10 {
                    keys.push(kms.create_key(&tags(&format!("{process}-{n}"))).await.unwrap());
                }
                keys
            })
        })
        .collect();
    let mut made = HashSet::new();
    for task in tasks {
        made.extend(task.await.unwrap());
    }
    assert_eq!(made.len(), 40);
    let found = LocalKms::open(&path).unwrap().find_by_tag("rowseal:version", "1").await.unwrap();
    assert_eq!(found.into_iter().collect::<HashSet<_>>(), made);
}

#[tokio::test]
async fn a_rewrite_that_was_cut_short_does_no_harm() {
    let (_folder, path) = ring();
    let kms = LocalKms::open_or_create(&path).unwrap();
    let key = kms.create_key(&tags("acme")).await.unwrap();
    fs::write(path.with_file_name("keyring.toml.new"), "version = 1\n[[ke").unwrap();
    let kms = LocalKms::open(&path).unwrap();
    kms.create_key(&tags("globex")).await.unwrap();
    assert!(kms.generate_data_key(&key, &context("acme")).await.is_ok());
    assert_eq!(mode(&path), 0o600);
}

#[tokio::test]
async fn a_deleted_key_is_gone() {
    let (_folder, path) = ring();
    let kms = LocalKms::open_or_create(&path).unwrap();
    let key = kms.create_key(&tags("acme")).await.unwrap();
    kms.schedule_deletion(&key, 7).await.unwrap();
    let text = fs::read_to_string(&path).unwrap();
    let (head, tail) = text.split_once("at_unix = ").unwrap();
    let rest = tail.trim_start_matches(|c: char| c.is_ascii_digit());
    fs::write(&path, format!("{head}at_unix = 1{rest}")).unwrap();
    assert_eq!(class(kms.cancel_deletion(&key).await), KmsErrorClass::NotFound);
    assert_eq!(class(kms.generate_data_key(&key, &context("acme")).await), KmsErrorClass::NotFound);
    kms.create_key(&tags("globex")).await.unwrap();
    assert!(!fs::read_to_string(&path).unwrap().contains(key.as_str()), "the material must leave the file");
}

#[tokio::test]
async fn a_link_to_a_keyring_stays_a_link() {
    let (folder, path) = ring();
    drop(LocalKms::open_or_create(&path).unwrap());
    let link = folder.path().join("link.toml");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let key = LocalKms::open_or_create(&link).unwrap().create_key(&tags("acme")).await.unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert!(LocalKms::open(&path).unwrap().describe(&key).await.is_ok());
}

#[test]
fn an_empty_keyring_never_takes_the_place_of_something_else() {
    let (folder, path) = ring();
    std::os::unix::fs::symlink(folder.path().join("gone.toml"), &path).unwrap();
    assert!(matches!(LocalKms::open_or_create(&path), Err(KeyringError::Missing(_))));
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o700)).unwrap();
    assert!(matches!(LocalKms::open_or_create(&path), Err(KeyringError::Io { .. })));
    assert!(path.is_dir());
}
