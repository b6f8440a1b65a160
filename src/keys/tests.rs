//! Registration and the facade, against a real Postgres and the local KMS.
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use bytes::Bytes;

use super::kms::local::LocalKms;
use super::kms::*;
use super::registry::{Registered, Registry, RegistryError, Wrapping};
use super::*;
use crate::crypto::KeyId;
use crate::setup::cluster::Cluster;

/// The local KMS, with its calls counted and, on demand, an outage that begins at the nth call.
struct Tapped {
    kms: LocalKms,
    calls: AtomicUsize,
    outage_after: AtomicUsize,
    _directory: tempfile::TempDir,
}

impl Tapped {
    fn new() -> Arc<Self> {
        let directory = tempfile::tempdir().unwrap();
        let kms = LocalKms::open_or_create(directory.path().join("keyring.toml")).unwrap();
        let (calls, outage_after) = (AtomicUsize::new(0), AtomicUsize::new(usize::MAX));
        Arc::new(Tapped { kms, calls, outage_after, _directory: directory })
    }

    /// Calls since the last time.
    fn calls(&self) -> usize {
        self.calls.swap(0, SeqCst)
    }

    fn tap<'a, T: 'a>(&'a self, call: KmsFuture<'a, T>) -> KmsFuture<'a, T> {
        if self.calls.fetch_add(1, SeqCst) >= self.outage_after.load(SeqCst) {
            return Box::pin(async { Err(KmsError::new("Outage", KmsErrorClass::WrongContextOrBlob)) });
        }
        call
    }
}

impl Kms for Tapped {
    fn create_key<'a>(&'a self, tags: &'a [(String, String)]) -> KmsFuture<'a, KeyArn> {
        self.tap(self.kms.create_key(tags))
    }
    fn find_by_tag<'a>(&'a self, name: &'a str, value: &'a str) -> KmsFuture<'a, Vec<KeyArn>> {
        self.tap(self.kms.find_by_tag(name, value))
    }
    fn generate_data_key<'a>(&'a self, key: &'a KeyArn, context: &'a EncryptionContext) -> KmsFuture<'a, DataKey> {
        self.tap(self.kms.generate_data_key(key, context))
    }
    fn encrypt<'a>(
        &'a self,
        key: &'a KeyArn,
        plaintext: &'a [u8],
        context: &'a EncryptionContext,
    ) -> KmsFuture<'a, Encrypted> {
        self.tap(self.kms.encrypt(key, plaintext, context))
    }
    fn decrypt<'a>(
        &'a self,
        key: &'a KeyArn,
        blob: &'a [u8],
        context: &'a EncryptionContext,
    ) -> KmsFuture<'a, Decrypted> {
        self.tap(self.kms.decrypt(key, blob, context))
    }
    fn re_encrypt<'a>(&'a self, source: Under<'a>, destination: Under<'a>, blob: &'a [u8]) -> KmsFuture<'a, Encrypted> {
        self.tap(self.kms.re_encrypt(source, destination, blob))
    }
    fn disable<'a>(&'a self, key: &'a KeyArn) -> KmsFuture<'a, String> {
        self.kms.disable(key)
    }
    fn enable<'a>(&'a self, key: &'a KeyArn) -> KmsFuture<'a, String> {
        self.kms.enable(key)
    }
    fn schedule_deletion<'a>(&'a self, key: &'a KeyArn, days: u8) -> KmsFuture<'a, String> {
        self.kms.schedule_deletion(key, days)
    }
    fn cancel_deletion<'a>(&'a self, key: &'a KeyArn) -> KmsFuture<'a, String> {
        self.kms.cancel_deletion(key)
    }
    fn describe<'a>(&'a self, key: &'a KeyArn) -> KmsFuture<'a, KeyDescription> {
        self.tap(self.kms.describe(key))
    }
}

struct Bench {
    cluster: Cluster,
    kms: Arc<Tapped>,
}

impl Bench {
    async fn start() -> Option<Bench> {
        let cluster = Cluster::start().await?;
        crate::setup::install(&cluster.connect("postgres").await).await.unwrap();
        Some(Bench { cluster, kms: Tapped::new() })
    }

    async fn registry(&self) -> Arc<Registry> {
        Arc::new(Registry::connect(&self.cluster.url("postgres")).await.unwrap())
    }

    async fn keys(&self, settings: KeysSettings) -> Keys {
        Keys::new(self.registry().await, self.kms.clone(), settings)
    }
}

/// Without background work, so that calls can be counted.
fn quiet() -> KeysSettings {
    let never = Duration::from_secs(3600);
    KeysSettings {
        confirm_interval: never,
        epoch_interval: never,
        registry_stale: never,
        pool_target: 0,
        pool_target_max: 0,
        ..KeysSettings::default()
    }
}

/// With a revocation bound that a test can wait for.
fn hasty() -> KeysSettings {
    let soon = Duration::from_millis(150);
    KeysSettings { confirm_interval: soon, epoch_interval: soon / 3, refused_for: soon, ..KeysSettings::default() }
}

fn fresh(tenant: &str, n: usize) -> Need {
    Need { fresh: vec![(tenant.into(), n)], ..Need::default() }
}

fn open(slots: &[OwnedSlot]) -> Need {
    Need { open: slots.to_vec(), ..Need::default() }
}

fn index(tenant: &str) -> Need {
    Need { index: vec![tenant.into()], ..Need::default() }
}

async fn eventually<F: Future<Output = bool>>(what: &str, check: impl Fn() -> F) {
    for _ in 0..500 {
        if check().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}

#[tokio::test]
async fn registration_goes_on_after_a_crash_at_every_step() {
    let Some(bench) = Bench::start().await else { return };
    let registry = bench.registry().await;
    for (tenant, wrapping) in [("acme", Wrapping::Direct), ("bolt", Wrapping::Hierarchical)] {
        let mut steps = 0;
        loop {
            bench.kms.calls();
            bench.kms.outage_after.store(steps, SeqCst);
            match registry.register(tenant, wrapping, &*bench.kms).await {
                Ok(registered) => break assert_eq!(registered, Registered::Now),
                Err(error) => assert!(matches!(error, RegistryError::Kms(_)), "{error:?}"),
            }
            assert!(!registry.snapshot().tenants.contains_key(tenant));
            steps += 1;
        }
        bench.kms.outage_after.store(usize::MAX, SeqCst);
        assert!(steps >= 5, "{steps}");
        let keys = bench.kms.find_by_tag(context::TAG_TENANT, tenant).await.unwrap();
        assert_eq!(keys.len(), 1, "no orphan key");
        let again = registry.register(tenant, wrapping, &*bench.kms).await.unwrap();
        assert_eq!(again, Registered::Already);
    }
    let other = registry.register("acme", Wrapping::Hierarchical, &*bench.kms).await;
    assert!(matches!(other, Err(RegistryError::OtherWrapping(Wrapping::Direct))));
    for name in [" a", "a ", "", "a\nb", "a\"b"] {
        assert!(matches!(registry.register(name, Wrapping::Direct, &*bench.kms).await, Err(RegistryError::Name)));
    }
    let reserved = registry.register("_rowseal", Wrapping::Direct, &*bench.kms).await;
    assert!(matches!(reserved, Err(RegistryError::Reserved)));
    assert_eq!(registry.register_reserved(&*bench.kms).await.unwrap(), Registered::Now);
    assert!(registry.snapshot().tenants["_rowseal"].index.is_some());
}

#[tokio::test]
async fn two_proxies_register_a_tenant_once() {
    let Some(bench) = Bench::start().await else { return };
    let (one, two) = (bench.keys(quiet()).await, bench.keys(quiet()).await);
    let (a, b) = tokio::join!(one.register("acme", Wrapping::Direct), two.register("acme", Wrapping::Direct));
    assert_ne!(a.unwrap(), b.unwrap());
    assert_eq!(bench.kms.find_by_tag(context::TAG_TENANT, "acme").await.unwrap().len(), 1);
}

#[tokio::test]
async fn another_proxy_opens_what_one_sealed() {
    let Some(bench) = Bench::start().await else { return };
    let reader = bench.keys(quiet()).await;
    let writer = bench.keys(quiet()).await;
    for (tenant, wrapping) in [("acme", Wrapping::Direct), ("bolt", Wrapping::Hierarchical)] {
        writer.register(tenant, wrapping).await.unwrap();
        let name: Tenant = tenant.into();
        let made = writer.grant(fresh(tenant, 20)).await.unwrap().fresh.remove(&name).unwrap();
        assert_eq!(made.len(), 20);
        let slots: Vec<OwnedSlot> = made.iter().map(|dek| dek.slot.clone()).collect();
        assert!(reader.try_grant(&open(&slots)).is_none());
        bench.kms.calls();
        let (a, b) = tokio::join!(reader.grant(open(&slots)), reader.grant(open(&slots)));
        // One look at the tags, and each key unwrapped once: the DEKs, or the one branch key.
        assert_eq!(bench.kms.calls(), if wrapping == Wrapping::Direct { 21 } else { 2 });
        let warm = reader.try_grant(&open(&slots)).unwrap();
        for granted in [a.unwrap(), b.unwrap(), warm] {
            for dek in &made {
                let opened = granted.open[&dek.slot.dek_id].as_ref().unwrap();
                assert_eq!((opened.dek.expose(), &*opened.tenant), (dek.dek.expose(), tenant));
            }
        }
        roots_agree(&reader, &writer, tenant).await;
        errors_stand_alone(&bench, &slots).await;
        if wrapping == Wrapping::Hierarchical {
            bench.kms.calls();
            assert_eq!(writer.try_grant(&fresh(tenant, 3)).unwrap().fresh[&name].len(), 3);
            assert_eq!(bench.kms.calls(), 0);
        }
    }
    let unknown = writer.grant(fresh("nobody", 1)).await.err().unwrap();
    assert_eq!(unknown, KeyError::UnknownTenant("nobody".into()));
}

async fn roots_agree(one: &Keys, two: &Keys, tenant: &str) {
    let name: Tenant = tenant.into();
    let a = one.grant(index(tenant)).await.unwrap();
    let b = two.grant(index(tenant)).await.unwrap();
    assert_eq!(a.index[&name].expose(), b.index[&name].expose());
    assert!(one.try_grant(&index(tenant)).is_some());
}

async fn errors_stand_alone(bench: &Bench, slots: &[OwnedSlot]) {
    let (mut damaged, mut foreign) = (slots[1].clone(), slots[2].clone());
    damaged.wrapped = Bytes::from(damaged.wrapped.iter().map(|byte| byte ^ 1).collect::<Vec<u8>>());
    foreign.key_id = KeyId([9; 16]);
    let cold = bench.keys(quiet()).await;
    let granted = cold.grant(open(&[slots[0].clone(), damaged.clone(), foreign.clone()])).await.unwrap();
    assert!(granted.open[&slots[0].dek_id].is_ok());
    assert_eq!(granted.open[&damaged.dek_id].as_ref().err(), Some(&KeyError::Damaged));
    assert_eq!(granted.open[&foreign.dek_id].as_ref().err(), Some(&KeyError::UnknownKey));
    // A damaged slot takes nobody's keys away.
    assert!(cold.try_grant(&open(&slots[..1])).is_some());
}

#[tokio::test]
async fn the_pool_is_filled_ahead() {
    let Some(bench) = Bench::start().await else { return };
    let keys = bench.keys(KeysSettings { pool_target: 8, ..quiet() }).await;
    keys.register("acme", Wrapping::Direct).await.unwrap();
    let mut seen = std::collections::HashSet::new();
    for _ in 0..5 {
        let granted = keys.grant(fresh("acme", 3)).await.unwrap();
        seen.extend(granted.fresh.into_values().flatten().map(|dek| dek.slot.dek_id));
        eventually("a pooled key", || async {
            let Some(granted) = keys.try_grant(&fresh("acme", 4)) else { return false };
            granted.fresh.into_values().flatten().count() == 4
        })
        .await;
    }
    assert_eq!(seen.len(), 15, "no data key is given twice");
    // All or nothing: what was popped for one tenant goes back when another has none.
    let both = Need { fresh: vec![("acme".into(), 1), ("nobody".into(), 1)], ..Need::default() };
    assert!(keys.try_grant(&both).is_none());
}

#[tokio::test]
async fn a_disabled_key_stops_serving_and_no_other_does() {
    let Some(bench) = Bench::start().await else { return };
    let keys = bench.keys(hasty()).await;
    let mut slots = Vec::new();
    for (tenant, wrapping) in [("acme", Wrapping::Direct), ("bolt", Wrapping::Hierarchical), ("calm", Wrapping::Direct)]
    {
        keys.register(tenant, wrapping).await.unwrap();
        let made = keys.grant(fresh(tenant, 1)).await.unwrap().fresh.into_values().flatten().next().unwrap();
        slots.push(made.slot);
        keys.grant(open(&slots)).await.unwrap();
    }
    let arns: Vec<KeyArn> = keys.registry().snapshot().masters.values().map(|master| master.arn.clone()).collect();
    let arn_of = |tenant: &str| {
        let snapshot = keys.registry().snapshot();
        snapshot.masters[&snapshot.tenants[tenant].master].arn.clone()
    };
    assert_eq!(arns.len(), 3);
    for tenant in ["acme", "bolt"] {
        bench.kms.disable(&arn_of(tenant)).await.unwrap();
    }
    for (tenant, slot) in [("acme", &slots[0]), ("bolt", &slots[1])] {
        let one = open(std::slice::from_ref(slot));
        // The cached key is gone within the interval, without anyone asking the KMS for it.
        eventually("cached key dropped", || async { keys.try_grant(&one).is_none() }).await;
        let refused = Some(KeyError::Unavailable(tenant.into()));
        assert_eq!(keys.grant(one).await.unwrap().open[&slot.dek_id].as_ref().err().cloned(), refused);
        assert!(keys.try_grant(&fresh(tenant, 1)).is_none());
        assert_eq!(keys.grant(fresh(tenant, 1)).await.err(), refused);
        assert_eq!(keys.grant(index(tenant)).await.err(), refused);
    }
    let all = keys.grant(open(&slots)).await.unwrap();
    assert!(all.open[&slots[2].dek_id].is_ok());
    assert_eq!(all.open.values().filter(|opened| opened.is_err()).count(), 2);
    for tenant in ["acme", "bolt"] {
        bench.kms.enable(&arn_of(tenant)).await.unwrap();
    }
    eventually("keys come back", || async { keys.grant(open(&slots)).await.unwrap().open.values().all(Result::is_ok) })
        .await;
}

#[tokio::test]
async fn the_kms_says_whose_key_it_is() {
    let Some(bench) = Bench::start().await else { return };
    let keys = bench.keys(hasty()).await;
    keys.register("acme", Wrapping::Direct).await.unwrap();
    keys.register("evil", Wrapping::Direct).await.unwrap();
    let slot = keys.grant(fresh("acme", 1)).await.unwrap().fresh.into_values().flatten().next().unwrap().slot;
    keys.grant(open(std::slice::from_ref(&slot))).await.unwrap();
    let root = bench.cluster.connect("postgres").await;
    // Someone with write access to the registry gives acme's key to evil.
    root.batch_execute(
        "UPDATE rowseal.master_key SET state = 'retiring' WHERE tenant = 'evil';
         UPDATE rowseal.master_key SET tenant = 'evil', version = 2 WHERE tenant = 'acme'",
    )
    .await
    .unwrap();
    eventually("epoch taken up", || async { !keys.registry().snapshot().tenants.contains_key("acme") }).await;
    eventually("no longer served", || async {
        let granted = keys.grant(open(std::slice::from_ref(&slot))).await.unwrap();
        granted.open[&slot.dek_id].as_ref().err() == Some(&KeyError::Unavailable("evil".into()))
    })
    .await;
    assert_eq!(keys.grant(fresh("evil", 1)).await.err(), Some(KeyError::Unavailable("evil".into())));
    // The heartbeat says that the epoch has been taken up.
    eventually("acknowledged", || async {
        let acknowledged = "SELECT count(*) FROM rowseal.proxy p, rowseal.epoch e WHERE p.epoch = e.value";
        root.query_one(acknowledged, &[]).await.unwrap().get::<_, i64>(0) == 1
    })
    .await;
}

#[tokio::test]
async fn the_control_connection_comes_back() {
    let Some(bench) = Bench::start().await else { return };
    let keys = bench.keys(hasty()).await;
    let root = bench.cluster.connect("postgres").await;
    let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'rowseal'";
    root.batch_execute(kill).await.unwrap();
    let other = bench.registry().await;
    other.register("acme", Wrapping::Direct, &*bench.kms).await.unwrap();
    eventually("the new tenant", || async { keys.grant(fresh("acme", 1)).await.is_ok() }).await;
}

#[tokio::test]
async fn the_cache_keeps_its_bound() {
    let Some(bench) = Bench::start().await else { return };
    let keys = bench.keys(KeysSettings { cache_bytes_max: 320 * 10, ..quiet() }).await;
    keys.register("acme", Wrapping::Direct).await.unwrap();
    let made = keys.grant(fresh("acme", 50)).await.unwrap();
    let slots: Vec<OwnedSlot> = made.fresh.into_values().flatten().map(|dek| dek.slot).collect();
    let granted = keys.grant(open(&slots)).await.unwrap();
    assert!(granted.open.values().all(Result::is_ok));
    assert!(keys.cached() <= 10, "{}", keys.cached());
}
