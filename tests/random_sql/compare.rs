//! Runs a case on both sides and says where they differ, or what leaked.
use std::collections::BTreeMap;
use std::time::Duration;

use memchr::memmem;

use super::grammar::{Case, Dice, Execute, Run, Step};
use super::params::Param;
use super::tables::{self, MARK, POLICY, ROWS, TABLES, VIEWS, Values, written};
use crate::support::peer::{Message, Out, Peer, field, show};
use crate::support::postgres::{Cluster, Version};
use crate::support::proxy::{Proxy, Site};
use crate::support::tap::Tap;

/// No statement of a case takes longer.
const REPLY_TIMEOUT: Duration = Duration::from_secs(20);

/// What is wrong, worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    Leak,
    Lost,
    Differs,
}

/// How often statements of a kind were run, and refused.
#[derive(Debug, Default, Clone, Copy)]
pub struct Count {
    pub run: usize,
    pub refused: usize,
}

/// The sealed tables behind the proxy and their plain twins, each in a server of its own: so the log of the sealed one
/// has nothing of the other's.
pub struct Twins {
    sealed: Cluster,
    plain: Cluster,
    proxy: Proxy,
    _site: Site,
    tap: Tap,
    sealed_peer: Peer,
    plain_peer: Peer,
    sealed_aside: Peer,
    plain_aside: Peer,
    pub counts: BTreeMap<&'static str, Count>,
    pub allowed: BTreeMap<&'static str, usize>,
    /// What refusals said, without the names in it.
    pub refusals: BTreeMap<String, usize>,
    log_read: usize,
}

fn peer(address: std::net::SocketAddr) -> Peer {
    let mut peer = Peer::connect(address, "app");
    peer.wait_at_most(REPLY_TIMEOUT);
    peer
}

impl Twins {
    pub fn start(version: Version) -> Twins {
        let (sealed, plain) = (Cluster::start(version), Cluster::start(version));
        let tap = Tap::start(sealed.host_port());
        let site = Site::with_upstream(tap.address(), &sealed, POLICY);
        sealed.createdb("app");
        plain.createdb("app");
        site.run_ok(&["setup"]);
        ["1", "2"].iter().for_each(|tenant| drop(site.run_ok(&["tenant", "register", tenant])));
        sealed.psql("app", &tables::create(true));
        plain.psql("app", &tables::create(false));
        let proxy = site.serve();
        let (mut sealed_peer, mut plain_peer) = (peer(proxy.address()), peer(plain.host_port()));
        for sql in ROWS {
            assert!(sealed_peer.ask(sql).ends_with("Z(I)") && plain_peer.ask(sql).ends_with("Z(I)"));
        }
        [&sealed, &plain].into_iter().for_each(tables::keep);
        let (sealed_aside, plain_aside) = (peer(sealed.host_port()), peer(plain.host_port()));
        let (counts, allowed, refusals, log_read) = Default::default();
        let site = site;
        Twins {
            sealed,
            plain,
            proxy,
            _site: site,
            tap,
            sealed_peer,
            plain_peer,
            sealed_aside,
            plain_aside,
            counts,
            allowed,
            refusals,
            log_read,
        }
    }

    /// Runs a case; gives what is wrong with it.
    pub fn run(&mut self, case: &Case) -> Option<(Fault, String)> {
        let mut found = self.steps(case).err();
        let leaked = self.leaks(&self.tap.take_to_server());
        if let Some(leak) = leaked {
            found = Some((Fault::Leak, format!("the server was sent {leak}")));
        }
        if matches!(found, Some((Fault::Lost, _))) {
            self.sealed_peer = peer(self.proxy.address());
            self.plain_peer = peer(self.plain.host_port());
        }
        self.reset(case);
        found
    }

    fn reset(&mut self, case: &Case) {
        for end in [&mut self.sealed_peer, &mut self.plain_peer] {
            end.ask("ROLLBACK");
            end.ask("DEALLOCATE ALL");
        }
        let anew = case.steps.iter().any(|step| step.run == Run::Aside);
        if !case.dirty && !anew {
            return;
        }
        for (aside, sealed) in [(&mut self.sealed_aside, true), (&mut self.plain_aside, false)] {
            let create = if anew { tables::create(sealed) } else { String::new() };
            let shown = aside.ask(&(create + &tables::restore()));
            assert!(!shown.contains("E(ERROR"), "{shown}");
        }
        if anew {
            // Lets the proxy read the schema before the next case.
            self.sealed_peer.ask("DROP TABLE IF EXISTS nothing_of_that_name");
        }
    }

    fn steps(&mut self, case: &Case) -> Result<(), (Fault, String)> {
        let mut open = false;
        for (n, step) in case.steps.iter().enumerate() {
            if step.run == Run::Aside {
                self.sealed_aside.ask(&written(&step.sql, true));
                self.plain_aside.ask(&written(&step.sql, false));
                continue;
            }
            let count = self.counts.entry(step.kind).or_default();
            count.run += 1;
            let sealed = replies(&mut self.sealed_peer, step)
                .map_err(|why| (Fault::Lost, format!("{step:?}\n  sealed: {why}")))?;
            if let Some(cell) = shows_cell(&sealed) {
                return Err((Fault::Leak, format!("{step:?}\n  a client was sent a cell: {cell}")));
            }
            if let Some((b'Z', state)) = sealed.last() {
                open = state != b"I";
            }
            if is_refused(&sealed) {
                self.counts.entry(step.kind).or_default().refused += 1;
                *self.refusals.entry(said(&sealed)).or_default() += 1;
                // The plain side is where the sealed one is now only if nothing had been begun.
                if open { return Ok(()) } else { continue }
            }
            let plain = replies(&mut self.plain_peer, step)
                .map_err(|why| (Fault::Lost, format!("{step:?}\n  plain: {why}")))?;
            let (plain, sealed) = (shown(&step.sql, plain), shown(&step.sql, sealed));
            if plain == sealed {
                continue;
            }
            let answers = super::known::Answers { steps: &case.steps[..=n], plain: &plain, sealed: &sealed };
            if let Some(reason) = super::known::reason(&answers) {
                *self.allowed.entry(reason).or_default() += 1;
                return Ok(());
            }
            return Err((Fault::Differs, format!("{step:?}\n  plain:  {plain}\n  sealed: {sealed}")));
        }
        Ok(())
    }

    /// A value of a sealed column in what the server was sent.
    fn leaks(&self, bytes: &[u8]) -> Option<String> {
        let (place, needle) = needles().iter().find_map(|needle| Some((find(bytes, needle)?, needle)))?;
        let around = &bytes[place.saturating_sub(150)..(place + 60).min(bytes.len())];
        Some(format!("{:?} in {}", String::from_utf8_lossy(needle), around.escape_ascii()))
    }

    /// The same in what the server, or the proxy, has logged.
    pub fn leaks_in_logs(&mut self) -> Option<String> {
        let (server, own) = (self.sealed.log(), self.proxy.log());
        let from = std::mem::replace(&mut self.log_read, server.len());
        let leak = self.leaks(&server.as_bytes()[from..]).map(|leak| format!("in the server's log: {leak}"));
        assert!(!own.contains("panicked"), "{own}");
        leak.or_else(|| self.leaks(own.as_bytes()).map(|leak| format!("in the proxy's log: {leak}")))
    }

    /// Tables that come and go while others use them: nothing is compared, but nothing leaks and no session is lost.
    pub fn storm(&mut self, cases: &[(u64, Case)]) -> Vec<(u64, Fault, String)> {
        let (address, stop) = (self.sealed.host_port(), std::sync::atomic::AtomicBool::new(false));
        let mut wrong = Vec::new();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let (mut aside, mut dice) = (peer(address), Dice::new(1));
                aside.ask("SET lock_timeout = 500");
                while !stop.load(std::sync::atomic::Ordering::SeqCst) {
                    let table = &TABLES[dice.below(TABLES.len())];
                    // Its sealed columns may come a little later, as in a migration.
                    let late = dice.one_in(2);
                    let create = written(&table.create(late), true);
                    aside.ask(&format!("DROP TABLE IF EXISTS {} CASCADE", table.name));
                    std::thread::sleep(Duration::from_millis(dice.below(20) as u64));
                    aside.ask(&create);
                    if late {
                        std::thread::sleep(Duration::from_millis(dice.below(40) as u64));
                        aside.ask(&written(&table.add_sealed(), true));
                    }
                    aside.ask(&format!("INSERT INTO {0} SELECT * FROM kept.{0}", table.name));
                    std::thread::sleep(Duration::from_millis(dice.below(20) as u64));
                }
            });
            // A view that was dropped with its table is a name that nobody knows.
            let of_view = |step: &Step| {
                let sql = step.sql.to_ascii_lowercase();
                VIEWS.iter().any(|view| sql.contains(&view.name.trim_matches('"').to_ascii_lowercase()))
            };
            for (seed, case) in cases.iter().filter(|(_, case)| !case.steps.iter().any(of_view)) {
                for step in case.steps.iter().filter(|step| step.run != Run::Aside) {
                    match replies(&mut self.sealed_peer, step) {
                        Err(why) => {
                            wrong.push((*seed, Fault::Lost, format!("{step:?}: {why}")));
                            self.sealed_peer = peer(self.proxy.address());
                        }
                        Ok(sealed) => {
                            let cell = shows_cell(&sealed);
                            wrong.extend(cell.map(|cell| (*seed, Fault::Leak, format!("{step:?}: a cell: {cell}"))));
                        }
                    }
                    let leak = self.leaks(&self.tap.take_to_server());
                    wrong
                        .extend(leak.map(|leak| (*seed, Fault::Leak, format!("{step:?}: the server was sent {leak}"))));
                }
                self.sealed_peer.ask("ROLLBACK");
                self.sealed_peer.ask("DEALLOCATE ALL");
            }
            stop.store(true, std::sync::atomic::Ordering::SeqCst);
        });
        let shown = self.sealed_aside.ask(&(tables::create(true) + &tables::restore()));
        assert!(!shown.contains("E(ERROR"), "{shown}");
        wrong
    }
}

fn replies(peer: &mut Peer, step: &Step) -> Result<Vec<Message>, String> {
    let out = match &step.run {
        Run::Simple | Run::Aside => Out::new().query(&step.sql),
        Run::Extended { params, format, portal, execute } => {
            let oids: Vec<u32> = params.iter().map(|param| param.oid).collect();
            let params: Vec<_> = params.iter().map(Param::sent).collect();
            let bound = |out: Out| {
                let out = out.bind_as("", &params, &[*format]);
                if *portal { out.describe('P', "") } else { out }
            };
            let out = bound(Out::new().parse_as("", &step.sql, &oids).describe('S', ""));
            match execute {
                Execute::Once => out.execute("", 0).sync(),
                Execute::InParts => out.execute("", 2).execute("", 0).sync(),
                Execute::Twice => bound(out.execute("", 0)).execute("", 0).sync(),
            }
        }
    };
    peer.send_anyway(&out.0);
    let mut all = Vec::new();
    loop {
        match peer.try_receive() {
            Ok(Some(message)) => all.push(message),
            Ok(None) => return Err(format!("closed after {}", show(&all))),
            Err(error) => return Err(format!("{error} after {}", show(&all))),
        }
        if all.last().is_some_and(|(tag, _)| *tag == b'Z') {
            return Ok(all);
        }
    }
}

/// True for a refusal: what cannot be done safely, what the policy forbids, a row whose tenant is not known.
fn is_refused(messages: &[Message]) -> bool {
    let refused = |(tag, body): &Message| match &*field(body, b'C') {
        _ if *tag != b'E' => false,
        "0A000" | "42501" | "55000" => true,
        _ => false,
    };
    messages.iter().any(refused)
}

/// What the error says, but for the column.
fn said(messages: &[Message]) -> String {
    let error = messages.iter().find(|(tag, _)| *tag == b'E');
    let message = error.map_or(String::new(), |(_, body)| field(body, b'M'));
    let named = |word: &&str| !word.contains('.') && !word.ends_with('"');
    message.split(' ').filter(named).collect::<Vec<_>>().join(" ")
}

/// Rows in a fixed order unless the statement asks for one. Which rows come before an error is left to the server.
pub fn shown(sql: &str, mut messages: Vec<Message>) -> String {
    if messages.iter().any(|(tag, _)| *tag == b'E') {
        messages.retain(|(tag, _)| *tag != b'D');
    }
    let own = sql.rfind("ORDER BY") > sql.rfind(')').max(Some(0));
    if !is_ordered(sql) || !own || sql.contains("OVER (ORDER BY") {
        messages.chunk_by_mut(|a, b| a.0 == b'D' && b.0 == b'D').for_each(<[Message]>::sort);
    }
    // What the proxy says of a value leaves the value out. Details show rows and keys of indexes, which are cells and tokens.
    let errors = messages.iter().filter(|(tag, body)| *tag == b'E' && !field(body, b'C').starts_with("22"));
    let told: String = errors
        .map(|(_, body)| format!(" \"{}\" {} at {};", field(body, b'M'), field(body, b'H'), field(body, b'P')))
        .collect();
    show(&messages) + &told
}

/// True when a statement, the only one of its text, says itself how its rows are ordered.
pub fn is_ordered(sql: &str) -> bool {
    !sql.contains("; ") && sql.rfind("ORDER BY") > sql.rfind(')').max(Some(0))
}

/// A cell, or one in hexadecimal, in what a client was sent.
pub fn shows_cell(messages: &[Message]) -> Option<String> {
    let cell = |body: &[u8]| {
        [&b"\xc1\x52\x53"[..], b"c15253", b"C15253"].iter().any(|magic| memmem::find(body, magic).is_some())
    };
    let found = messages.iter().find(|(_, body)| cell(body))?;
    Some(show(std::slice::from_ref(found)))
}

/// Values of sealed columns in each form in which the server could be sent them. The digits of a short number would turn
/// up in the hexadecimal digits of some cell by chance; these do not: ten digits and more, or with other characters in
/// them. A number's binary form is too short to be looked for.
pub fn needles() -> &'static [Vec<u8>] {
    static NEEDLES: std::sync::OnceLock<Vec<Vec<u8>>> = std::sync::OnceLock::new();
    NEEDLES.get_or_init(|| {
        let hex: String = MARK.bytes().map(|b| format!("{b:02x}")).collect();
        let mut all: Vec<Vec<u8>> = vec![MARK.into(), MARK.to_uppercase().into(), hex.into()];
        for values in [Values::Age, Values::Amount, Values::Code, Values::Born, Values::Moment, Values::Price] {
            for text in values.texts() {
                let digits = text.trim_start_matches('-');
                all.push(digits.split(['.', ' ']).next().unwrap().into());
            }
        }
        for text in Values::Code.texts() {
            all.push(text.replace('-', "").into());
            all.push(uuid::Uuid::parse_str(text).unwrap().as_bytes().into());
        }
        all
    })
}

/// Where a needle stands; one of digits only not in the midst of hexadecimal digits.
pub fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    let short = needle.len() < 16 && needle.iter().all(u8::is_ascii_digit);
    let hex = |at: Option<usize>| at.and_then(|at| bytes.get(at)).is_some_and(u8::is_ascii_hexdigit);
    memmem::find_iter(bytes, needle).find(|at| !(short && (hex(at.checked_sub(1)) || hex(Some(at + needle.len())))))
}
