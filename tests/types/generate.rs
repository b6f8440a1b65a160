//! Texts of every type: forms that must be taken, forms that may be wrong, and few values in several spellings.
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use rowseal::types::LogicalType;

/// A type and its texts.
pub struct Subject {
    /// As the policy names it.
    pub name: String,
    good: BoxedStrategy<String>,
    loose: BoxedStrategy<String>,
    narrow: BoxedStrategy<String>,
    /// True when no two texts of the narrow values are one value.
    pub one_spelling: bool,
}

fn draw(strategy: &BoxedStrategy<String>, runner: &mut TestRunner, count: usize) -> Vec<String> {
    (0..count).map(|_| strategy.new_tree(runner).unwrap().current()).collect()
}

impl Subject {
    fn new(name: &str, good: &[&str], loose: &[&str], narrow: &[&str]) -> Subject {
        let good = any_of(good);
        Subject {
            name: name.to_owned(),
            loose: prop_oneof![2 => any_of(loose), 1 => damaged(good.clone())].boxed(),
            good,
            narrow: any_of(narrow),
            one_spelling: false,
        }
    }

    fn also(mut self, good: BoxedStrategy<String>) -> Subject {
        self.good = prop_oneof![self.good, good].boxed();
        self
    }

    pub fn ty(&self) -> LogicalType {
        LogicalType::parse(&self.name).unwrap()
    }

    pub fn values(&self, runner: &mut TestRunner, count: usize) -> Vec<String> {
        draw(&self.good, runner, count)
    }

    pub fn loose(&self, runner: &mut TestRunner, count: usize) -> Vec<String> {
        draw(&self.loose, runner, count)
    }

    pub fn narrow(&self, runner: &mut TestRunner, count: usize) -> Vec<String> {
        draw(&self.narrow, runner, count)
    }
}

/// Any of these regular expressions.
fn any_of(patterns: &[&str]) -> BoxedStrategy<String> {
    let strategies: Vec<_> =
        patterns.iter().map(|p| proptest::string::string_regex(p).unwrap_or_else(|e| panic!("{p}: {e}"))).collect();
    proptest::strategy::Union::new(strategies).boxed()
}

/// A good text with one character lost, doubled or replaced.
fn damaged(good: BoxedStrategy<String>) -> BoxedStrategy<String> {
    (
        good,
        any::<prop::sample::Index>(),
        prop::sample::select(&["", "0", "-", ":", " ", "9", "x", ".", "{", ",", "\""][..]),
    )
        .prop_map(|(text, index, put)| {
            let mut characters: Vec<String> = text.chars().map(String::from).collect();
            if !characters.is_empty() {
                let at = index.index(characters.len());
                characters[at] = put.to_owned();
            }
            characters.concat()
        })
        .boxed()
}

/// Changed bytes: cut, lengthened, one byte other; and the bytes themselves.
pub fn changed(runner: &mut TestRunner, value: &[u8]) -> Vec<Vec<u8>> {
    let mut all = vec![value.to_vec(), [value, &[0]].concat(), Vec::new()];
    let index = any::<(prop::sample::Index, u8)>();
    if !value.is_empty() {
        all.push(value[..value.len() - 1].to_vec());
        for _ in 0..6 {
            let (at, byte) = index.new_tree(runner).unwrap().current();
            let mut other = value.to_vec();
            other[at.index(value.len())] = byte;
            all.push(other);
        }
    }
    all
}

const TEXT: &[&str] =
    &["[ -~]{0,12}", "[a-zäöüß€🦀 \\t\\n\"\\\\{},]{0,8}", "NULL|null|", "[A-Za-zÄÖÜäöüΣσ]{0,4} {0,3}"];
const DAY: &str = "(0{0,2}[1-9][0-9]{3}|1[0-9]{4})-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])";
const NEAR_DAY: &str = "(19[0-9]{2}|20[0-3][0-9])-(0?[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])";
const CLOCK: &str = "([01][0-9]|2[0-3]|[0-9]):[0-5][0-9](:[0-5][0-9](\\.[0-9]{1,9})?)?";
const OFFSET: &str = "(Z|z| ?UTC| ?[+-](0?[0-9]|1[0-5])(:?[0-5][0-9])?|[+-]0[0-9]:[0-5][0-9]:[0-5][0-9])";
const INTERVAL_GOOD: &[&str] = &[
    "@? ?(-?[0-9]{1,3} ?(years?|y|yr))?,? (-?[0-9]{1,2} (mons?|months?)) ([+-]?[0-9]{1,4} d(ays?)?)?( [+-]?[0-9]{1,3}:[0-5][0-9](:[0-5][0-9](\\.[0-9]{1,7})?)?)?( ago)?",
    "-?[0-9]{1,2} weeks? -?[0-9]{1,3}(\\.[0-9]{1,4})? (h|hours?|hrs) [0-9]{1,3} mins? [0-9]{1,5}(\\.[0-9]{1,8})? s(ecs?|econds?)?",
    "[0-9]{1,3}\\.[0-9]{1,3} (days|weeks|months|years|decades|hours|minutes)( ago)?",
    "[+-]?[0-9]{1,4}-([0-9]|1[01])( [+-]?[0-9]{1,3} [+-]?[0-9]{1,3}:[0-5][0-9]:[0-5][0-9])?",
    "-?[0-9]{1,3} [0-9]{1,2}:[0-5][0-9](:[0-5][0-9])?",
    "[+-]?[0-9]{1,9}(\\.[0-9]{1,7})?",
    "P-?[0-9]{1,3}Y-?[0-9]{1,2}M(-?[0-9]{1,2}D)?(T-?[0-9]{1,3}H(-?[0-9]{1,2}M-?[0-9]{1,5}(\\.[0-9]{1,6})?S)?)?",
    "P[0-9]{1,3}W|PT-?[0-9]{1,6}\\.[0-9]{1,6}S",
    "[0-9]{1,5} (ms|us|milliseconds|microseconds|usec)",
    "[0-9] (decades?|c|cent|mil|century)",
];

fn time_like() -> Vec<Subject> {
    let zoned = format!("{CLOCK}{OFFSET}");
    let stamp = |day: &str| format!("{day}[T ]{CLOCK}|00[1-9]{{2}}-01-02 {CLOCK} BC");
    let stamp_zoned = |day: &str| format!("{day}[ T]{CLOCK}{OFFSET}|[0-3][0-9]{{2}}1-12-31 {CLOCK}Z BC");
    let loose_stamp =
        ["[0-9]{4}-[0-9]{2}-[0-9]{2} [0-2][0-9]:[0-9]{2}:[0-6][0-9](\\+[0-9]{2})?", "[0-9]{1,7}-1?[0-9]-[0-3]?[0-9]"];
    let interval_loose = [
        "[0-9]{1,11} (years|mons|days|hours|secs|weeks)",
        "[0-9]{1,12}:[0-9]{2}:[0-9]{2}",
        "[0-9]{1,3} (day|year|hour|x|days ago|month) [0-9]{1,3} (day|min|ago|mon|h)?",
        "[+-]?[0-9]{1,2}-[0-9]{1,2}",
        "P[0-9]{0,2}[YMWDTHS][0-9]{0,2}[YMWDTHS]?",
        "[-+0-9:. dhy@]{1,9}",
    ];
    let clocks = ["00:00:00", "24:00:00", "23:59:60", "12:00:00\\.5", "12:00:00\\.500", "12:00"];
    let with_offsets = ["12:00(\\+00|Z|-00|\\+01|-01)", "13:00\\+01", "11:00:00\\.00-01"];
    let loose_clock = ["[0-2]?[0-9]:[0-9]{2}(:[0-9]{2})?(\\.[0-9])?", "[0-9:.]{1,8}", "[0-9]{2}:[0-9]{2}\\+[0-9]{1,2}"];
    let mut all = Vec::new();
    for name in ["time", "time(0)", "time(3)"] {
        all.push(Subject::new(name, &[CLOCK, "24:00:00|23:59:60|23:59:59\\.9999999", &zoned], &loose_clock, &clocks));
    }
    for name in ["timetz", "timetz(2)"] {
        all.push(Subject::new(
            name,
            &[&zoned],
            &[&zoned, "[0-2]?[0-9]:[0-9]{2}\\+[0-9]{1,3}", "[012]?[0-9]:[0-5][0-9]"],
            &with_offsets,
        ));
    }
    for name in ["timestamp", "timestamp(0)", "timestamp(4)"] {
        let good = [&stamp(DAY), &stamp(NEAR_DAY), "-?infinity", &stamp_zoned(NEAR_DAY)];
        let narrow = ["2024-01-0[12]( 00:00(:00)?)?", "-?infinity", "20240101"];
        all.push(Subject::new(name, &good, &loose_stamp, &narrow));
    }
    for name in ["timestamptz", "timestamptz(1)"] {
        let good = [&stamp(NEAR_DAY), &stamp_zoned(DAY), &stamp_zoned(NEAR_DAY), "-?infinity"];
        let narrow = ["2024-01-01 (12:00\\+00|13:00\\+01|11:00:00-01|12:00)", "-?infinity"];
        all.push(Subject::new(name, &good, &loose_stamp, &narrow));
    }
    for name in ["interval", "interval(0)", "interval(3)"] {
        let narrow =
            ["[01] (mons|month)( 30 days)?", "(30|60|0) days?", "(720|24|0):00(:00)?", "1 day|-1 day|1 day ago"];
        all.push(Subject::new(name, INTERVAL_GOOD, &interval_loose, &narrow));
    }
    let days = ["2024-0[12]-01", "2024/02/01", "20240101", "2024-1-1", "-?infinity"];
    let loose_days = ["[0-9]{4}-[01][0-9]-[0-3][0-9]( BC)?", "[0-9]{4,7}-[0-9]{1,2}-[0-9]{1,2}", "today|[0-9/]{8,10}"];
    all.push(Subject::new(
        "date",
        &[DAY, NEAR_DAY, "-?infinity", "[1-4][0-9]{6}-01-01", "00[1-9][0-9]-01-02 BC"],
        &loose_days,
        &days,
    ));
    all
}

fn numbers() -> Vec<Subject> {
    let decimal = "[+-]?[0-9]{1,20}(\\.[0-9]{0,20})?|[+-]?\\.[0-9]{1,9}";
    let exponent = "-?[1-9](\\.[0-9]{1,17})?[eE][+-]?[0-9]{1,2}";
    let special = " ?(nan|NaN|[+-]?inf|-?Infinity) ?";
    let loose = ["[-+.e0-9]{1,6}", "-?[0-9]{1,6}(e-?[0-9]{1,3})?", "[0-9]{1,2}[a-f ][0-9]?", "-?[0-9]{1,22}"];
    let zeros = ["-?0(\\.0{1,2})?", "-?1(\\.0{0,2}|e0)?", "10|1e1|10\\.0", "nan|NaN", "-?inf"];
    let integers = ["0|-0|\\+0", "1| 1|01|-1", "12|012| 12 "];
    vec![
        Subject::new("int2", &["-?[0-9]{1,4}", " *[+-]?0{0,3}[0-9]{1,4} *", "-32768|32767"], &loose, &integers),
        Subject::new("int4", &["-?[0-9]{1,9}", " *[+-]?0{0,3}[0-9]{1,4} *", "-2147483648"], &loose, &integers),
        Subject::new("int8", &["-?[0-9]{1,18}", " *[+-]?0{0,3}[0-9]{1,4} *"], &loose, &integers),
        Subject::new(
            "float4",
            &[decimal, "-?[1-9](\\.[0-9]{1,12})?[eE][+-]?([0-9]|[12][0-9]|3[0-7])", special],
            &loose,
            &zeros,
        )
        .also(any::<f32>().prop_map(|x| format!("{x:e}")).boxed())
        .also((-149..128_i32).prop_map(|n| format!("{:e}", 2_f32.powi(n))).boxed()),
        Subject::new(
            "float8",
            &[decimal, exponent, special, "-?[1-9]e[12][0-9]{2}", "1e2[2-4]|9007199254740993"],
            &loose,
            &zeros,
        )
        .also(any::<f64>().prop_map(|x| format!("{x:e}")).boxed())
        .also((-1074..1024_i32).prop_map(|n| format!("{:e}", 2_f64.powi(n))).boxed())
        .also((1..1_000_000_i32, -30..40_i32).prop_map(|(n, e)| format!("{n}e{e}")).boxed()),
        Subject::new("numeric", &[decimal, exponent, special], &loose, &zeros),
        Subject::new(
            "numeric(7,2)",
            &["-?[0-9]{1,4}(\\.[0-9]{0,6})?", "NaN"],
            &loose,
            &["1(\\.0{0,4})?", "0\\.00[0-9]", "2\\.5"],
        ),
        Subject::new("numeric(3,-2)", &["-?[0-9]{1,4}"], &loose, &["1[0-9][0-9]", "[45][0-9]"]),
    ]
}

fn texts() -> Vec<Subject> {
    let narrow = ["[aA]{0,2}", "[äÄ]?b", "ab? {0,2}"];
    let mut all = vec![
        Subject::new("text", TEXT, TEXT, &narrow),
        Subject::new("varchar(5)", &["[a-zß€]{0,5} {0,4}"], TEXT, &["a {0,2}", "abcde {0,3}"]),
        Subject::new("varchar", TEXT, TEXT, &narrow),
        Subject::new("bpchar", TEXT, TEXT, &narrow),
        Subject::new("char(5)", &["[a-zß€]{0,5} {0,4}"], TEXT, &["a {0,2}", "A", " a {0,5}"]),
        Subject::new("citext", TEXT, TEXT, &["[aA]{0,2}", "[äÄ][tT]r", "[σΣς]Я|[σΣς]я", "[ßẞ]|ss|ǆ|ǅ|Ǆ"]),
    ];
    for subject in &mut all {
        subject.one_spelling = matches!(subject.name.as_str(), "text" | "varchar");
    }
    all
}

fn others() -> Vec<Subject> {
    let uuid = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9A-F]{4}-[0-9a-f]{4}-[0-9a-f]{12}|\\{[0-9a-f]{32}\\}";
    let json_leaf =
        "null|true|-?[1-9][0-9]{0,3}(\\.[0-9]{1,3})?(e[0-9])?|\"[a-z\\\\\"]{0}[a-zé ]{0,4}(\\\\n|\\\\u00e9|\\\\\")?\"";
    let json = format!(
        "({json_leaf})|\\[ ?(({json_leaf}), ?)?({json_leaf})\\]|\\{{\"b\": ?({json_leaf}), \"a\":({json_leaf}),\"b\" :\\[\\]\\}}"
    );
    let json_loose = ["[\\[\\]{}:,\"a0-9.e\\- ]{1,8}", "[0-9.eE+-]{1,6}", "\"\\\\(u[0-9a-d]{4}|[a-z])\"", "[a-z]{4}"];
    let v4 = "(0|[1-9][0-9]?|1[0-9]{2}|2[0-4][0-9])(\\.(0|[1-9][0-9]?|1[0-9]{2}|2[0-4][0-9])){3}";
    let v6 = "([0-9a-f]{1,4}:){7}[0-9a-fA-F]{1,4}|(0:){1,6}:[0-9a-f]{1,2}|::([0-9a-f]{1,4}:){0,5}[0-9a-f]{1,4}|([0-9a-f]{1,4}:){1,5}:|(::|::ffff:|1:2::)1\\.2\\.3\\.4|(0|1):(0|1):(0|1):(0|1):(0|1):(0|1):(0|1):(0|1)";
    let inet = [&format!("{v4}(/([0-9]|[12][0-9]|3[0-2]))?"), &format!("({v6})(/([0-9]|[1-9][0-9]|12[0-8]))?")];
    let inet_loose =
        ["[0-9.]{1,9}(/[0-9]{1,3})?", "[0-9a-f:]{1,12}(/[0-9]{1,3})?", "1\\.2\\.3\\.[0-9]{1,3}/[0-9]{1,3}"];
    let networks = [
        "10\\.0\\.0\\.0/(8|9|[12][0-9])",
        "192\\.168\\.1\\.0(/24|/32)?",
        "(0:0:0::|0::|::)/0",
        "1:2::/(32|48)",
        "1\\.2\\.3\\.4(/32)?",
    ];
    let mut all = vec![
        Subject::new(
            "bool",
            &[" ?(t|tr|true|y|yes|on|1) ?", "f|FALSE|n|No|of|off|0"],
            &["[tfyno01r ]{1,4}"],
            &["t|true|1", "f|no"],
        ),
        Subject::new(
            "uuid",
            &[uuid],
            &["[0-9a-f]{30,33}", "\\{?[0-9a-f]{8}(-[0-9a-f]{4}){5}"],
            &["(a{8}|A{8})-[bB]{4}-b{4}-b{4}-b{12}"],
        ),
        Subject::new("json", &[&json], &json_loose, &["1"]),
        Subject::new(
            "jsonb",
            &[&json],
            &json_loose,
            &["[01](\\.0{1,2})?|1e1|10", "\\[1(\\.0)?\\]", "\\{\"a\":1,\"b\":(1|1\\.0)\\}|\\{\"b\":1,\"a\":1\\}"],
        ),
        Subject::new(
            "bytea",
            &["\\\\x([0-9a-fA-F]{2} ?){0,6}", "([a-z ]|\\\\[0-3][0-7]{2}|\\\\\\\\){0,6}"],
            &["\\\\x[0-9a-g ]{0,4}", "[a\\\\0-8]{0,6}"],
            &["\\\\x(61|62)?", "a|b|\\\\141"],
        ),
        Subject::new(
            "inet",
            &inet.map(String::as_str),
            &inet_loose,
            &["1\\.2\\.3\\.4(/32|/24)?", "::1(/128)?|0:0::1", "::1\\.2\\.3\\.4|::102:304"],
        ),
        Subject::new("cidr", &networks, &inet_loose, &networks),
    ];
    for subject in &mut all {
        subject.one_spelling = subject.name == "json";
    }
    all
}

/// Every type that is not an array, some with a modifier too.
pub fn scalars() -> Vec<Subject> {
    [texts(), numbers(), time_like(), others()].into_iter().flatten().collect()
}

/// An element as an array's text may hold it.
fn quoted(element: String, bare: bool) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "+-.:/".contains(c);
    if bare && !element.is_empty() && element.chars().all(plain) && !element.eq_ignore_ascii_case("null") {
        return element;
    }
    format!("\"{}\"", element.replace('\\', "\\\\").replace('"', "\\\""))
}

fn array_text(element: BoxedStrategy<String>, bounds: bool) -> BoxedStrategy<String> {
    let element = prop_oneof![
        6 => (element, any::<bool>()).prop_map(|(text, bare)| quoted(text, bare)),
        1 => Just("NULL".to_owned()),
    ];
    let lower = if bounds { (-3..4_i32).boxed() } else { Just(1).boxed() };
    (prop::collection::vec(element, 0..4), lower, prop::sample::select(&["", " "][..]))
        .prop_map(|(elements, lower, space)| {
            let body = format!("{{{space}{}{space}}}", elements.join(&format!("{space},{space}")));
            match elements.len() {
                n if n > 0 && lower != 1 => format!("[{lower}:{}]={body}", lower + n as i32 - 1),
                _ => body,
            }
        })
        .boxed()
}

/// Arrays of every type.
pub fn arrays() -> Vec<Subject> {
    let wrong = any_of(&[
        "\\{[a1,\" ]{0,5}\\}",
        "\\[[0-9]:[0-9]\\]=\\{1,2\\}",
        "[{}1, ]{1,6}",
        "\\{\\{1\\},\\{2\\}\\}",
        "\\{1,2\\}[ x]",
    ]);
    let array = |scalar: Subject| Subject {
        name: format!("{}[]", scalar.name),
        good: array_text(scalar.good, true),
        loose: prop_oneof![1 => array_text(scalar.loose, false), 1 => wrong.clone()].boxed(),
        narrow: array_text(scalar.narrow, true),
        // Few of them are alike.
        one_spelling: true,
    };
    scalars().into_iter().map(array).collect()
}
