//! AWS KMS behind the facade of keys: registration and grants over a real registry and the strict stand-in.
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rowseal::crypto::OwnedSlot;
use rowseal::keys::kms::aws::{AwsKms, AwsSettings};
use rowseal::keys::kms::{KeyArn, Kms, Patient};
use rowseal::keys::registry::{Registered, Registry, Wrapping};
use rowseal::keys::{KeyError, Keys, KeysSettings, Need, Tenant};
use serde_json::{Value, json};

use crate::strict_kms::{self, StrictKms};
use crate::support::postgres::{Cluster, Version};

const MODES: [(&str, Wrapping); 2] = [("acme", Wrapping::Direct), ("bolt", Wrapping::Hierarchical)];

struct Bench {
    cluster: Cluster,
    kms: Arc<Patient>,
    server: Arc<StrictKms>,
}

impl Bench {
    async fn start() -> Bench {
        let cluster = Cluster::start(Version::Any);
        rowseal::setup::install(&cluster.connect("postgres").await).await.unwrap();
        let (address, server) = strict_kms::start("127.0.0.1:0".parse().unwrap(), None).await.unwrap();
        let settings = AwsSettings { endpoint: Some(format!("http://{address}")), ..AwsSettings::default() };
        let kms = Arc::new(Patient::new(Arc::new(AwsKms::with_credentials(&settings, "test", "test"))));
        Bench { cluster, kms, server }
    }

    /// The keys of one more proxy.
    async fn keys(&self, settings: KeysSettings) -> Keys {
        let control = format!("postgres://postgres@{}/postgres", self.cluster.host_port());
        let registry = Registry::connect(&control).await.unwrap();
        Keys::new(Arc::new(registry), self.kms.clone(), settings)
    }

    fn set(&self, knobs: &Value) {
        self.server.control(knobs).unwrap();
    }

    /// How often each request of this operation was made, told apart by encryption context, since entry `from`.
    fn calls(&self, operation: &str, from: usize) -> BTreeMap<String, usize> {
        let mut calls = BTreeMap::new();
        for entry in self.server.log().iter().skip(from).filter(|entry| entry["operation"] == operation) {
            *calls.entry(entry["context"].to_string()).or_default() += 1;
        }
        calls
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
    let soon = Duration::from_millis(300);
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

/// Slots of fresh data keys, with the keys themselves.
async fn write(keys: &Keys, tenant: &str, n: usize) -> Vec<(OwnedSlot, [u8; 32])> {
    let made = keys.grant(fresh(tenant, n)).await.unwrap().fresh.remove::<Tenant>(&tenant.into()).unwrap();
    made.into_iter().map(|made| (made.slot, *made.dek.expose())).collect()
}

async fn eventually(what: &str, check: impl AsyncFn() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !check().await {
        assert!(Instant::now() < end, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_cold_readers_make_one_call_a_key() {
    let bench = Bench::start().await;
    let writer = bench.keys(quiet()).await;
    for (tenant, wrapping) in MODES {
        writer.register(tenant, wrapping).await.unwrap();
        let made = write(&writer, tenant, 8).await;
        let slots: Vec<OwnedSlot> = made.iter().map(|(slot, _)| slot.clone()).collect();
        let from = bench.server.log().len();
        // Slow answers, so that all readers are there before the first one is.
        bench.set(&json!({"latency_ms": 100}));
        let cold = bench.keys(quiet()).await;
        let readers: Vec<_> = (0..40)
            .map(|_| {
                let (cold, slots, tenant) = (cold.clone(), slots.clone(), Tenant::from(tenant));
                tokio::spawn(async move { cold.grant(Need { index: vec![tenant], ..open(&slots) }).await.unwrap() })
            })
            .collect();
        for reader in readers {
            let granted = reader.await.unwrap();
            for (slot, key) in &made {
                assert_eq!(granted.open[&slot.dek_id].as_ref().unwrap().dek.expose(), key);
            }
        }
        bench.set(&json!({"latency_ms": 0}));
        let mut calls = bench.calls("Decrypt", from);
        // Confirmations come with time, not with readers.
        calls.retain(|context, _| !context.contains("canary"));
        // The index root, and each data key or the one branch key.
        assert_eq!(calls.len(), if wrapping == Wrapping::Direct { 9 } else { 2 }, "{calls:?}");
        assert!(calls.values().all(|n| *n == 1), "{calls:?}");
        assert_eq!(bench.calls("DescribeKey", from).into_values().collect::<Vec<_>>(), [1]);
    }
}

#[tokio::test]
async fn a_key_of_another_tenant_opens_nothing() {
    let bench = Bench::start().await;
    let keys = bench.keys(quiet()).await;
    let mut slots = Vec::new();
    for tenant in ["acme", "bolt"] {
        keys.register(tenant, Wrapping::Direct).await.unwrap();
        slots.push(write(&keys, tenant, 1).await.remove(0).0);
    }
    let foreign = OwnedSlot { key_id: slots[1].key_id, ..slots[0].clone() };
    let moved = OwnedSlot { dek_id: slots[1].dek_id, ..slots[0].clone() };
    for wrong in [foreign, moved] {
        let cold = bench.keys(quiet()).await;
        let granted = cold.grant(open(std::slice::from_ref(&wrong))).await.unwrap();
        assert_eq!(granted.open[&wrong.dek_id].as_ref().err(), Some(&KeyError::Damaged));
    }
}

#[tokio::test]
async fn a_key_disabled_at_the_service_stops_serving_and_comes_back() {
    let bench = Bench::start().await;
    let keys = bench.keys(hasty()).await;
    for (tenant, wrapping) in MODES {
        keys.register(tenant, wrapping).await.unwrap();
    }
    for (tenant, _) in MODES {
        let slot = [write(&keys, tenant, 1).await.remove(0).0];
        assert!(keys.grant(open(&slot)).await.unwrap().open[&slot[0].dek_id].is_ok());
        let snapshot = keys.registry().snapshot();
        let arn: KeyArn = snapshot.masters[&snapshot.tenants[tenant].master].arn.clone();
        bench.kms.disable(&arn).await.unwrap();
        let began = Instant::now();
        let opened = async || keys.grant(open(&slot)).await.unwrap().open.remove(&slot[0].dek_id).unwrap().err();
        let refused = Some(KeyError::Unavailable(tenant.into()));
        eventually("refused", async || opened().await == refused).await;
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        assert_eq!(keys.grant(fresh(tenant, 1)).await.err(), refused);
        assert_eq!(keys.grant(index(tenant)).await.err(), refused);
        bench.kms.enable(&arn).await.unwrap();
        eventually("back", async || opened().await.is_none()).await;
    }
}

#[tokio::test]
async fn what_passes_is_not_noticed() {
    let bench = Bench::start().await;
    let writer = bench.keys(quiet()).await;
    for (tenant, wrapping) in MODES {
        writer.register(tenant, wrapping).await.unwrap();
        for trouble in [
            json!({"error_burst": 3, "error_name": "ThrottlingException"}),
            json!({"error_burst": 3, "error_name": "KMSInternalException"}),
            json!({"error_burst": 3, "error_name": "DependencyTimeoutException"}),
            json!({"error_burst": 3, "error_name": "ServiceUnavailable"}),
            json!({"cut": 3}),
            json!({"lose_replies": 3}),
        ] {
            let new_proxy = bench.keys(quiet()).await;
            bench.set(&trouble);
            let made = write(&new_proxy, tenant, 2).await;
            bench.set(&trouble);
            let slots: Vec<OwnedSlot> = made.iter().map(|(slot, _)| slot.clone()).collect();
            let cold = bench.keys(quiet()).await;
            let granted = cold.grant(Need { index: vec![tenant.into()], ..open(&slots) }).await;
            let granted = granted.unwrap_or_else(|error| panic!("{trouble}: {error}"));
            assert!(granted.open.values().all(Result::is_ok), "{trouble}");
            bench.set(&json!({"error_burst": 0, "cut": 0, "lose_replies": 0}));
        }
    }
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_not_waited_for() {
    let bench = Bench::start().await;
    let keys = bench.keys(quiet()).await;
    keys.register("acme", Wrapping::Direct).await.unwrap();
    bench.set(&json!({"stall": 1, "only": "GenerateDataKey"}));
    let slot = [write(&keys, "acme", 1).await.remove(0).0];
    bench.set(&json!({"stall": 1, "only": "Decrypt"}));
    assert!(keys.grant(open(&slot)).await.unwrap().open[&slot[0].dek_id].is_ok());
}

#[tokio::test]
async fn an_outage_ends_in_a_refusal_and_takes_no_key_away() {
    let bench = Bench::start().await;
    let keys = bench.keys(quiet()).await;
    keys.register("acme", Wrapping::Direct).await.unwrap();
    let made = write(&keys, "acme", 2).await;
    let warm = keys.grant(open(std::slice::from_ref(&made[0].0))).await.unwrap();
    assert!(warm.open[&made[0].0.dek_id].is_ok());
    bench.set(&json!({"outage": true}));
    let began = Instant::now();
    let both = keys.grant(open(&[made[0].0.clone(), made[1].0.clone()])).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(11), "{:?}", began.elapsed());
    assert_eq!(both.open[&made[1].0.dek_id].as_ref().err(), Some(&KeyError::Unreachable));
    assert!(both.open[&made[0].0.dek_id].is_ok(), "a confirmed key is used on");
    // Known to be away, the service is not waited for again.
    let began = Instant::now();
    assert_eq!(keys.grant(fresh("acme", 1)).await.err(), Some(KeyError::Unreachable));
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    bench.set(&json!({"outage": false}));
    assert!(keys.grant(open(std::slice::from_ref(&made[1].0))).await.unwrap().open[&made[1].0.dek_id].is_ok());
    // Credentials that are not accepted take no key away either, and are not tried again and again.
    bench.set(&json!({"error_burst": 1, "error_name": "UnrecognizedClientException"}));
    assert_eq!(keys.grant(fresh("acme", 1)).await.err(), Some(KeyError::Unreachable));
    assert!(keys.try_grant(&open(std::slice::from_ref(&made[0].0))).is_some());
}

#[tokio::test]
async fn registration_waits_for_a_key_that_is_not_known_everywhere() {
    let bench = Bench::start().await;
    let keys = bench.keys(quiet()).await;
    for (n, trouble) in [
        json!({"propagation_ms": 900}),
        json!({"error_burst": 3, "error_name": "AccessDeniedException", "only": "GenerateDataKey"}),
        json!({"error_burst": 3, "error_name": "NotFoundException", "only": "Encrypt"}),
        json!({"error_burst": 3, "error_name": "AccessDeniedException", "only": "DescribeKey"}),
        json!({"error_burst": 3, "error_name": "ThrottlingException", "only": "Encrypt"}),
        json!({"error_burst": 3, "error_name": "ThrottlingException", "only": "CreateKey"}),
        json!({"lose_replies": 1, "only": "CreateKey"}),
        json!({"lose_replies": 1, "only": "CreateKey", "propagation_ms": 900}),
    ]
    .iter()
    .enumerate()
    {
        let tenant = format!("tenant{n}");
        bench.set(trouble);
        let registered = keys.register(&tenant, Wrapping::Hierarchical).await;
        assert_eq!(registered.unwrap_or_else(|error| panic!("{trouble}: {error:?}")), Registered::Now);
        bench.set(&json!({"propagation_ms": 0, "error_burst": 0, "lose_replies": 0, "only": ""}));
        let own = bench.kms.find_by_tag("rowseal:tenant", &tenant).await.unwrap();
        assert_eq!(own.len(), 1, "{trouble}: an orphan key");
        write(&keys, &tenant, 1).await;
    }
    let all: HashSet<KeyArn> = keys.registry().snapshot().masters.values().map(|key| key.arn.clone()).collect();
    assert_eq!(all.len(), 8, "a key serves one tenant");
}

#[tokio::test]
async fn a_first_registration_does_not_search_the_account() {
    let bench = Bench::start().await;
    let keys = bench.keys(quiet()).await;
    for tenant in ["acme", "bolt"] {
        keys.register(tenant, Wrapping::Direct).await.unwrap();
    }
    assert!(bench.calls("ListKeys", 0).is_empty(), "{:?}", bench.server.log());
    let calls = bench.server.log().len();
    assert_eq!(keys.register("acme", Wrapping::Direct).await.unwrap(), Registered::Already);
    assert_eq!(bench.server.log().len(), calls);
}

#[tokio::test]
async fn a_registration_that_was_cut_short_is_taken_up_again() {
    let bench = Bench::start().await;
    let keys = bench.keys(quiet()).await;
    bench.set(&json!({"error_burst": 100, "error_name": "DisabledException", "only": "Encrypt"}));
    keys.register("acme", Wrapping::Direct).await.unwrap_err();
    bench.set(&json!({"error_burst": 0, "only": ""}));
    assert_eq!(keys.register("acme", Wrapping::Direct).await.unwrap(), Registered::Now);
    assert_eq!(bench.kms.find_by_tag("rowseal:tenant", "acme").await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_crash_behind_the_creation_leaves_no_orphan_key() {
    let bench = Bench::start().await;
    let control = format!("postgres://postgres@{}/postgres", bench.cluster.host_port());
    let registry = Registry::connect(&control).await.unwrap();
    bench.set(&json!({"stall": 1, "only": "DescribeKey", "propagation_ms": 1500}));
    let crashed = registry.register("acme", Wrapping::Direct, &*bench.kms);
    assert!(tokio::time::timeout(Duration::from_millis(400), crashed).await.is_err());
    let created = |entry: &Value| entry["operation"] == "CreateKey";
    assert_eq!(bench.server.log().iter().filter(|entry| created(entry)).count(), 1);
    bench.set(&json!({"stall": 0, "only": ""}));
    assert_eq!(registry.register("acme", Wrapping::Direct, &*bench.kms).await.unwrap(), Registered::Now);
    assert_eq!(bench.server.log().iter().filter(|entry| created(entry)).count(), 1);
}
