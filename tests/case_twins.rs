//! Every statement of the case files on real servers: on sealed tables through the proxy and on plain ones directly, by
//! either protocol, with results in text and binary, with literals and with parameters. Each gives the same columns, types,
//! rows, tags and SQLSTATE, or is refused as its case file says (T1, T3, T4, T5). No value of a sealed column reaches the
//! server, no cell the client. What is known to differ is said in [`known`].
//!
//! `CASE_TWINS=word` runs only the statements with that word in them.
use std::collections::BTreeMap;
use std::time::Instant;

use crate::random_sql::compare::shown;
use crate::support::peer::{Message, Out};
use crate::support::postgres::Version;
use files::{Case, Expected};
use known::Told;
use twins::{Servers, Twins, state};

mod files;
mod known;
mod schema;
mod twins;
mod ways;

/// Fewer than these, or more that are known to differ, mean that the test has stopped testing.
const CASES_MIN: usize = 1800;
const RUNS_MIN: usize = 6200;
const SAME_MIN: usize = 2900;
const REFUSED_MIN: usize = 2600;
const KNOWN_MAX: usize = 170;

/// How many databases share the work: some statements wait for the proxy to read the schema anew.
const DATABASES: usize = 12;

/// What became of the runs of one file.
#[derive(Debug, Default, Clone, Copy)]
struct Count {
    cases: usize,
    runs: usize,
    same: usize,
    errors: usize,
    /// Errors on both sides, of different kinds.
    otherwise: usize,
    refused: usize,
    known: usize,
}

impl Count {
    fn add(&mut self, other: &Count) {
        self.cases += other.cases;
        self.runs += other.runs;
        self.same += other.same;
        self.errors += other.errors;
        self.otherwise += other.otherwise;
        self.refused += other.refused;
        self.known += other.known;
    }
}

/// What one database found.
struct All<'a> {
    twins: Twins<'a>,
    counts: BTreeMap<String, Count>,
    known: BTreeMap<&'static str, usize>,
    wrong: Vec<String>,
}

/// One way to run a statement.
struct Run {
    way: &'static str,
    sql: String,
    out: Out,
    /// It is not the text of the case: whether it is refused is not said there.
    is_variant: bool,
}

type Param = (i16, Option<Vec<u8>>);

fn extended(sql: &str, params: &[Param], result: i16) -> Out {
    let params: Vec<_> = params.iter().map(|(format, value)| (*format, value.as_deref())).collect();
    let out = Out::new().parse("", sql).describe('S', "").bind_as("", &params, &[result]).describe('P', "");
    out.execute("", 0).sync()
}

impl All<'_> {
    fn case(&mut self, case: &Case) {
        self.counts.entry(case.file.clone()).or_default().cases += 1;
        let mut runs =
            vec![Run { way: "simple", sql: case.sql.clone(), out: Out::new().query(&case.sql), is_variant: false }];
        // Definitions of tables that are not there yet take their time: the proxy reads the schema anew for each.
        if !["ddl", "migrations"].contains(&&*case.file) {
            runs.extend(self.extended_runs(case));
            runs.extend(self.variants(case));
        }
        let before = schema::before(&case.sql);
        for run in runs {
            self.run(case, &before, &run);
        }
    }

    /// By the extended protocol, with the case's own parameters.
    fn extended_runs(&mut self, case: &Case) -> Vec<Run> {
        let sql = &case.sql;
        let run = |way, out| Run { way, sql: sql.clone(), out, is_variant: false };
        let types = self.twins.param_types(sql).unwrap_or_default();
        if types.is_empty() {
            return vec![run("text", extended(sql, &[], 0)), run("binary", extended(sql, &[], 1))];
        }
        let null = types.iter().map(|_| (0, None)).collect::<Vec<Param>>();
        let mut runs = vec![run("NULL", extended(sql, &null, 0))];
        let of = |n: usize| -> Vec<Option<&'static str>> {
            let value = |(at, oid): (usize, &u32)| ways::values(*oid, case.is_sealed(at)).map(|values| values[n]);
            types.iter().enumerate().map(value).collect()
        };
        let text = |values: &[Option<&str>]| -> Vec<Param> {
            values.iter().map(|value| (0, value.map(|value| value.as_bytes().to_vec()))).collect()
        };
        runs.push(run("values as text", extended(sql, &text(&of(0)), 0)));
        runs.push(run("other values as text", extended(sql, &text(&of(1)), 1)));
        let binary = self.binary(&types, &of(0));
        runs.extend(binary.map(|params| run("values as binary", extended(sql, &params, 1))));
        runs
    }

    /// With parameters in place of literals, where the plain server takes them.
    fn variants(&mut self, case: &Case) -> Vec<Run> {
        let Some((sql, literals)) = ways::parametrized(&case.sql) else { return Vec::new() };
        let Some(types) = self.twins.param_types(&sql) else { return Vec::new() };
        let text: Vec<Param> = literals.iter().map(|literal| (0, Some(literal.as_bytes().to_vec()))).collect();
        let run = |way, out| Run { way, sql: sql.clone(), out, is_variant: true };
        let literals: Vec<Option<&str>> = literals.iter().map(|literal| Some(&**literal)).collect();
        let binary = self.binary(&types, &literals);
        let binary = binary.map(|params| run("literals as binary", extended(&sql, &params, 1)));
        std::iter::once(run("literals as text", extended(&sql, &text, 0))).chain(binary).collect()
    }

    /// The values in binary form, where each is one of its type.
    fn binary(&mut self, types: &[u32], values: &[Option<&str>]) -> Option<Vec<Param>> {
        let pairs = types.iter().zip(values);
        pairs
            .map(|(oid, value)| match value {
                None => Some((1, None)),
                Some(value) => self.twins.binary(*oid, value).map(|bytes| (1, Some(bytes))),
            })
            .collect()
    }

    fn run(&mut self, case: &Case, before: &[String], run: &Run) {
        let Run { way, sql, out, is_variant } = run;
        let count = self.counts.get_mut(&case.file).unwrap();
        count.runs += 1;
        let is_copy = sql.to_ascii_lowercase().contains("copy");
        let at = format!("{}, {way}: {sql}", case.file);
        let (plain, sealed) = match self.twins.run(before, out, is_copy) {
            Ok(answers) => (answers.plain, answers.sealed),
            Err(why) => return self.wrong.push(format!("{at}\n  {why}")),
        };
        let code = state(&sealed).unwrap_or_default();
        let is_refusal = ["0A000", "42501", "55000"].contains(&&*code);
        match &case.expected {
            Expected::Asked(Some(expected)) if *expected == code => return count.refused += 1,
            Expected::Refused(expected) if !is_variant => {
                if *expected == code {
                    count.refused += 1;
                } else {
                    let told = shown(sql, sealed);
                    self.wrong.push(format!(
                        "{at}\n  expected: {expected}\n  plain: {}\n  sealed: {told}",
                        shown(sql, plain)
                    ));
                }
                return;
            }
            _ if *is_variant && is_refusal => return count.refused += 1,
            _ => {}
        }
        let is_error = state(&plain).is_some();
        let otherwise = state(&plain).is_some_and(|plain| plain != code) && !["", "57014"].contains(&&*code);
        if otherwise && !["08", "XX"].iter().any(|class| code.starts_with(class)) {
            return count.otherwise += 1;
        }
        let [plain, sealed] = [plain, sealed].map(|messages| told(case, sql, messages));
        if plain == sealed {
            *(if is_error { &mut count.errors } else { &mut count.same }) += 1;
        } else if let Some(reason) = known::reason(&Told { case, sql, plain: &plain, sealed: &sealed }) {
            count.known += 1;
            *self.known.entry(reason).or_default() += 1;
        } else {
            self.wrong.push(format!("{at}\n  plain:  {plain}\n  sealed: {sealed}"));
        }
    }
}

/// An answer in the form in which it is compared. A plan is one of other tables; which rows a LIMIT or
/// DISTINCT ON gives is the server's choice, and so is the order of those that are copied.
fn told(case: &Case, sql: &str, mut messages: Vec<Message>) -> String {
    let upper = sql.to_ascii_uppercase();
    if case.is_definition() {
        messages.retain(|(tag, _)| *tag != b'N');
    }
    let is_chosen = [" LIMIT ", "DISTINCT ON"].iter().any(|word| upper.contains(word)) && !upper.contains("ORDER BY");
    if upper.contains("EXPLAIN") || is_chosen {
        messages.retain(|(tag, _)| *tag != b'D');
    }
    if !upper.contains("ORDER BY") {
        messages.chunk_by_mut(|a, b| a.0 == b'd' && b.0 == b'd').for_each(<[Message]>::sort);
    }
    // Among rows that are alike in what they are ordered by, the order is the server's choice too.
    let by = sql.rfind("ORDER BY ").map_or("", |at| &sql[at..]);
    let is_unique = by.split([' ', '.', ',', ';']).any(|word| word == "id");
    shown(if is_unique { sql } else { "" }, messages)
}

/// Runs every so many'th case in one database.
fn part<'a>(servers: &'a Servers, n: usize, cases: &[Case]) -> All<'a> {
    let twins = Twins::of(servers, n);
    let mut all = All { twins, counts: BTreeMap::new(), known: BTreeMap::new(), wrong: Vec::new() };
    cases.iter().skip(n).step_by(DATABASES).for_each(|case| all.case(case));
    all
}

fn check(version: Version) {
    let (start, word) = (Instant::now(), std::env::var("CASE_TWINS").ok());
    let servers = Servers::start(version, DATABASES);
    let wanted = |case: &Case| word.as_ref().is_none_or(|word| case.sql.contains(word));
    let cases: Vec<Case> = files::all().into_iter().filter(wanted).collect();
    let parts: Vec<All<'_>> = std::thread::scope(|scope| {
        let (servers, cases) = (&servers, &cases);
        let threads: Vec<_> = (0..DATABASES).map(|n| scope.spawn(move || part(servers, n, cases))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let (mut counts, mut known, mut total) = (BTreeMap::<&str, Count>::new(), BTreeMap::new(), Count::default());
    for part in &parts {
        part.known.iter().for_each(|(reason, n)| *known.entry(*reason).or_insert(0) += n);
        for (file, count) in &part.counts {
            counts.entry(file).or_default().add(count);
            total.add(count);
        }
    }
    counts.iter().for_each(|(file, count)| eprintln!("{version:?} {file}: {count:?}"));
    eprintln!("{version:?} in {:?}: {total:?}\n  known: {known:#?}", start.elapsed());
    let wrong: Vec<String> = parts.into_iter().flat_map(|part| part.wrong).chain(servers.leak_in_logs()).collect();
    assert!(wrong.is_empty(), "{version:?}: {} are wrong:\n{}", wrong.len(), wrong.join("\n"));
    if word.is_none() {
        let enough = total.cases >= CASES_MIN && total.same >= SAME_MIN && total.refused >= REFUSED_MIN;
        assert!(enough && total.runs >= RUNS_MIN && total.known <= KNOWN_MAX, "{version:?}: {total:?}");
    }
}

#[test]
fn cases_agree_on_postgres_15() {
    check(Version::V15);
}

#[test]
fn cases_agree_on_postgres_18() {
    check(Version::V18);
}
