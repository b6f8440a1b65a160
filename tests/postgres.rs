//! Is the throw-away Postgres itself to be trusted?
use std::path::Path;

use crate::support::postgres::{Cluster, Version};

#[test]
fn a_cluster_answers_logs_and_leaves_nothing() {
    let cluster = Cluster::start(Version::Any);
    cluster.createdb("app");
    assert_eq!(cluster.psql("app", "select 40 + 2; select 'canary-1';"), "42\ncanary-1");
    assert!(cluster.log().contains("canary-1"), "log_statement = all shows every statement");
    let dir = cluster.socket_dir().to_owned();
    drop(cluster);
    assert!(!Path::new(&dir).exists(), "the directory goes with the cluster");
}

#[test]
fn a_failed_statement_is_told_with_its_message() {
    let cluster = Cluster::start(Version::Any);
    let error = cluster.try_psql("postgres", "select nowhere").unwrap_err();
    assert!(error.contains("nowhere"), "{error}");
}

#[test]
fn version_15_and_18_are_what_they_say() {
    for (version, least) in [(Version::V15, 13), (Version::V18, 18)] {
        let cluster = Cluster::start(version);
        let number: u32 = cluster.psql("postgres", "show server_version_num").parse().unwrap();
        assert!(number / 10_000 >= least, "{version:?} is {number}");
    }
}

#[tokio::test]
async fn tokio_postgres_connects_over_tcp() {
    let cluster = Cluster::start(Version::Any);
    let client = cluster.connect("postgres").await;
    let row = client.query_one("select $1::int4 + 1", &[&41i32]).await.unwrap();
    assert_eq!(row.get::<_, i32>(0), 42);
}
