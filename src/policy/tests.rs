use super::*;

fn rule(name: &str, read: Read, search: bool) -> RoleRule {
    RoleRule { name: name.to_owned(), read, search }
}

fn database(read: Read, roles: Vec<RoleRule>) -> Database {
    Database {
        name: "app".into(),
        tables: Vec::new(),
        unsealed: Unsealed::Refuse,
        read,
        roles,
        on_key_unavailable: OnKeyUnavailable::Error,
        control: "postgres://rowseal:canary@localhost/app".to_owned(),
        mark: OnceLock::new(),
    }
}

#[test]
fn a_mark_tells_what_differs() {
    let open = database(Read::Open, vec![]);
    let other = Database { control: String::new(), ..database(Read::Open, vec![]) };
    assert_eq!(open.mark(), other.mark());
    let masked = database(Read::Mask, vec![]);
    assert!(open.mark() != masked.mark() && open.plans_like(&masked) && !masked.covers_more(&open));
    let passing = Database { unsealed: Unsealed::Pass, ..database(Read::Open, vec![]) };
    assert!(!open.plans_like(&passing) && open.covers_more(&passing) && !passing.covers_more(&open));
}

#[test]
fn roles_get_their_own_entry_first_then_the_most_permissive_one() {
    let database = database(
        Read::Sealed,
        vec![rule("analyst", Read::Mask, false), rule("support", Read::Deny, true), rule("owner", Read::Open, false)],
    );
    let check = |role: &str, member_of: &[&str], read: Read, search: bool| {
        assert_eq!(database.access(role, member_of), Access { read, search }, "{role} in {member_of:?}");
    };
    check("analyst", &[], Read::Mask, false);
    check("analyst", &["owner"], Read::Mask, false);
    check("support", &["owner", "analyst"], Read::Deny, true);
    check("owner", &[], Read::Open, true);
    check("joe", &[], Read::Sealed, false);
    check("joe", &["staff"], Read::Sealed, false);
    check("joe", &["support"], Read::Deny, true);
    check("joe", &["staff", "support", "analyst"], Read::Mask, true);
    check("joe", &["analyst", "owner"], Read::Open, true);
    check("ANALYST", &[], Read::Sealed, false);
}

#[test]
fn a_database_that_is_open_to_all_may_be_searched_by_all() {
    let open = database(Read::Open, Vec::new());
    assert_eq!(open.access::<&str>("joe", &[]), Access { read: Read::Open, search: true });
}

#[test]
fn levels_are_ordered_from_deny_to_open() {
    assert!(Read::Deny < Read::Sealed && Read::Sealed < Read::Mask && Read::Mask < Read::Open);
}

#[test]
fn masks_keep_what_the_rule_says() {
    let check = |mask: Mask, value: &str, masked: Option<&str>| {
        assert_eq!(mask::apply(&mask, value, || Some("2b3c".to_owned())).as_deref(), masked, "{mask:?} of {value:?}");
    };
    check(Mask::Null, "123-45-6789", None);
    check(Mask::KeepLast(4), "123-45-6789", Some("*******6789"));
    check(Mask::KeepLast(4), "6789", Some("6789"));
    check(Mask::KeepLast(4), "", Some(""));
    check(Mask::KeepLast(0), "abc", Some("***"));
    check(Mask::KeepLast(2), "äöüß", Some("**üß"));
    check(Mask::KeepLast(u32::MAX), "abc", Some("abc"));
    check(Mask::KeepFirst(1), "äöü", Some("ä**"));
    check(Mask::Fixed("hidden".to_owned()), "abc", Some("hidden"));
    check(Mask::Hash, "abc", Some("2b3c"));
}

#[test]
fn debug_leaves_the_control_string_out() {
    assert!(!format!("{:?}", database(Read::Open, Vec::new())).contains("canary"));
}
