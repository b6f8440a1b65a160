//! Rows of a backup that hang on a key of before (K3).
use rowseal::keys::kms::KeyArn;

use super::stage::{FEW, Stage, assert_ok, said};
use crate::support::postgres::Version;

#[test]
fn rows_of_a_backup_are_wrapped_again_once_their_key_is_enabled() {
    for wrapping in ["direct", "hierarchical"] {
        let stage = Stage::start(wrapping, Version::V15);
        let proxy = stage.serve();
        stage.fill(proxy.address(), FEW);
        stage.cluster.psql("app", "CREATE TABLE backup AS SELECT * FROM ONLY people; ALTER TABLE backup ALTER email TYPE bytea, ALTER ssn TYPE bytea");
        assert_ok(&stage.rotate(&[]));
        stage.check_done();
        let old = stage.arns("'deactivated'");
        stage.cluster.psql("app", "TRUNCATE ONLY people; INSERT INTO people SELECT * FROM backup; DROP TABLE backup");
        let out_of_reach = stage.site.run(&["key", "rewrap", "1"]);
        assert_eq!(out_of_reach.status.code(), Some(1));
        assert!(said(&out_of_reach).contains("public.people: 180 rows hang on a version"), "{}", said(&out_of_reach));
        stage.runtime.block_on(stage.console().enable(&KeyArn::new(&*old[0]))).unwrap();
        let wrapped = stage.site.run_ok(&["key", "rewrap", "1"]);
        assert!(wrapped.contains("180 rows, 360 cells") && wrapped.contains("is disabled again"), "{wrapped}");
        stage.check_done();
        let expected = Stage::expected(FEW);
        assert_eq!(stage.contents(proxy.address()), expected);
        stage.check_search(proxy.address(), &expected);
        let again = stage.site.run_ok(&["key", "rewrap", "1"]);
        assert!(again.contains("0 rows, 0 cells"), "{again}");
    }
}
