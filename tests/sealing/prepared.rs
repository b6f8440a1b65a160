//! A statement that was prepared before its column was sealed, in a pipeline that fails just when it is prepared again.
use super::{seal, site};
use crate::support::guard::poll;
use crate::support::peer::{Out, Peer, show};
use crate::support::postgres::{Cluster, Version};

#[test]
fn a_statement_is_prepared_again_after_the_pipeline_that_should_have_done_so_failed() {
    let cluster = Cluster::start(Version::Any);
    let site = site(&cluster);
    cluster.psql(
        "app",
        "CREATE TABLE users (id int8 PRIMARY KEY, account_id int8 NOT NULL, email text, note text);
         INSERT INTO users VALUES (41, 1, 'ann@example.com', NULL)",
    );
    let proxy = site.serve();
    let mut peer = Peer::connect(proxy.address(), "app");
    let find = |out: Out, email: &str| out.bind("", "find", &[Some(email)], 0).execute("", 0);
    let fail = |out: Out| out.bind("", "fail", &[Some("0")], 0).execute("", 0);
    let select = "SELECT id FROM users WHERE account_id = 1 AND email = $1";
    let out = Out::new().parse("find", select).parse("fail", "SELECT 1 / $1::int");
    peer.send(&find(out, "ann@example.com").sync().0);
    assert!(show(&peer.until_ready(1)).contains("41"));
    let sealed = seal(&site, "public.users.email", &[]);
    assert!(sealed.status.success(), "{sealed:?}");
    // A second session plans by the schema as it is.
    poll("the sealed column", || {
        let found = "SELECT id FROM users WHERE account_id = 1 AND email = 'ann@example.com'";
        cluster.psql_at(proxy.address(), "app", found).ok().filter(|found| found == "41")
    });
    peer.send(&find(fail(Out::new()), "ann@example.com").sync().0);
    let failed = show(&peer.until_ready(1));
    assert!(failed.contains("22012") && !failed.contains("41"), "{failed}");
    // In one go with a pipeline whose end is not known yet, too.
    let twice = find(find(fail(Out::new()), "ann@example.com").sync(), "ann@example.com").sync();
    peer.send(&twice.0);
    let messages = show(&peer.until_ready(2));
    assert!(messages.contains("22012") && messages.contains("41"), "{messages}");
    for (email, is_found) in [("ann@example.com", true), ("nobody@example.com", false)] {
        peer.send(&find(Out::new(), email).sync().0);
        assert_eq!(show(&peer.until_ready(1)).contains("41"), is_found, "{email}");
    }
    assert!(!cluster.psql("app", "SELECT email FROM users").contains("ann"));
}
