//! One of three proxies stands still while a key is rotated, and wakes up behind it.
use super::crew::Crew;
use crate::support::guard::poll;
use crate::support::peer::{Out, Peer, show};

const DONE: &str = "C(INSERT 0 1\\x00) Z(I)";

fn insert(id: usize) -> String {
    format!("INSERT INTO users (id, account_id, email) VALUES ({id}, 1, 'user{id}@x')")
}

#[test]
fn a_stopped_proxy_is_fenced_and_writes_nothing_under_an_old_key() {
    for wrapping in ["direct", "hierarchical"] {
        let crew = Crew::start(wrapping);
        let mut peers = crew.peers();
        peers.extend(crew.peers_in_front(3));
        for (n, peer) in peers.iter_mut().enumerate() {
            assert_eq!(peer.ask(&insert(n)), DONE);
        }
        let prepared = Out::new().parse("s", "INSERT INTO users VALUES ($1, 1, $2)").sync();
        peers[0].send(&prepared.0);
        peers[0].until_ready(1);
        crew.signal(0, "STOP");
        // What it is sent now waits at its door: cells of it can only be made when it wakes up.
        let bound = Out::new().bind("", "s", &[Some("10"), Some("user10@x")], 0).execute("", 0).sync();
        peers[0].send(&bound.query(&insert(11)).0);
        let balanced = &mut peers[3..];
        balanced.iter_mut().for_each(|peer| peer.send_anyway(&Out::new().query(&insert(12)).0));
        // A service notices nothing but a session that is cut.
        poll("HAProxy to leave it out", || crew_serves(&crew).then_some(()));
        let told = crew.sites[1].run_ok(&["key", "rotate", "1", "--json"]);
        assert!(told.contains("has been silent and is fenced"), "{told}");
        assert_eq!(crew.cells_under_old_keys(), 0);
        crew.signal(0, "CONT");
        // What it had made when it was stopped, or makes before it knows, is not sent.
        let mut messages = Vec::new();
        while messages.iter().filter(|(tag, _)| *tag == b'Z').count() < 2
            && let Some(message) = peers[0].try_receive().unwrap()
        {
            messages.push(message);
        }
        let answers = show(&messages);
        if answers.ends_with("E(FATAL 58030)") {
            let mut again = Peer::connect(crew.proxies[0].address(), "app");
            for id in [10, 11] {
                let answer = again.ask(&format!("{} ON CONFLICT DO NOTHING", insert(id)));
                assert!(answer.starts_with("C(INSERT 0 "), "{answer}");
            }
        } else {
            assert_eq!(answers, format!("2 C(INSERT 0 1\\x00) Z(I) {DONE}"), "{}", crew.proxies[0].log());
        }
        // It is a member again.
        poll("the proxy on the list again", || (crew.cluster.psql("app", LISTED) == "3").then_some(()));
        assert_eq!(Peer::connect(crew.proxies[0].address(), "app").ask(&insert(13)), DONE);
        assert_eq!(crew.cells_under_old_keys(), 0, "a cell under a key that was rotated away");
        for mut peer in crew.peers() {
            let shown = peer.ask("SELECT email FROM users WHERE id IN (10, 11, 13) ORDER BY id");
            assert!(["user10@x", "user11@x", "user13@x"].iter().all(|email| shown.contains(email)), "{shown}");
        }
        crew.proxies.iter().for_each(|proxy| assert_eq!(proxy.stop(), 0));
        crew.audited();
    }
}

const LISTED: &str = "SELECT count(*) FROM rowseal.proxy WHERE heartbeat > clock_timestamp() - interval '5 seconds'";

/// Whether some sessions in a row are answered.
fn crew_serves(crew: &Crew) -> bool {
    (0..4).all(|_| {
        let mut peer = Peer::bare(crew.front());
        peer.wait_at_most(std::time::Duration::from_secs(1));
        peer.send_anyway(&crate::support::peer::startup(&[("user", "postgres"), ("database", "app")]));
        let mut last = None;
        while let Ok(Some((tag, _))) = peer.try_receive() {
            last = Some(tag);
            if tag == b'Z' {
                break;
            }
        }
        last == Some(b'Z')
    })
}
