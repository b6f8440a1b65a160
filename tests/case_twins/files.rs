//! The case files as statements to run: what each is expected to do, and which parameters stand for sealed values.
use std::path::Path;

/// What a case file says of a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// It is sent, as it is or rewritten.
    Sent,
    /// The server is asked about its names first, and may say what is wrong with them; else it may be refused so.
    Asked(Option<String>),
    /// It is refused with this SQLSTATE.
    Refused(String),
}

/// One statement of a case file.
#[derive(Debug, Clone)]
pub struct Case {
    pub file: String,
    pub sql: String,
    pub expected: Expected,
    /// For each parameter, whether its value is for sealed columns only.
    pub sealed_params: Vec<bool>,
}

impl Case {
    fn new(file: &str, block: &str) -> Option<Case> {
        let lines = block.lines().filter(|line| !line.starts_with('#'));
        let (statement, told): (Vec<&str>, Vec<&str>) = lines.partition(|line| line.starts_with("> "));
        let sql: Vec<&str> = statement.iter().map(|line| &line[2..]).collect();
        let after = |word: &str| told.iter().find_map(|line| line.strip_prefix(word));
        let code = after("refuse ").and_then(|said| said.split(' ').next());
        let expected = match code {
            code if told.iter().any(|line| line.starts_with("ask ")) => Expected::Asked(code.map(str::to_owned)),
            Some(code) => Expected::Refused(code.to_owned()),
            None => Expected::Sent,
        };
        let roles = after("params ").unwrap_or_default();
        let sealed_params = roles.split(' ').map(|role| role.starts_with("sealed:") || role.starts_with("many:"));
        let sealed_params = sealed_params.collect();
        (!sql.is_empty()).then(|| Case { file: file.to_owned(), sql: sql.join("\n"), expected, sealed_params })
    }

    /// True if a value for this parameter, counted from 0, may never reach the server.
    pub fn is_sealed(&self, param: usize) -> bool {
        matches!(self.expected, Expected::Refused(_)) || self.sealed_params.get(param).is_some_and(|sealed| *sealed)
    }

    /// True for definitions, of which the outcome is compared but no notice.
    pub fn is_definition(&self) -> bool {
        matches!(&*self.file, "ddl" | "migrations" | "views" | "utility")
    }
}

/// It has no end.
const ENDLESS: &str = "FROM users u UNION ALL SELECT id, j FROM r) SELECT j FROM r";

/// All cases of all files that end, file by file.
pub fn all() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> = entries.filter(|path| path.extension().is_some_and(|e| e == "case")).collect();
    paths.sort();
    let cases = paths.iter().flat_map(|path| {
        let (file, text) = (path.file_stem().unwrap().to_string_lossy(), std::fs::read_to_string(path).unwrap());
        text.split("\n\n").filter_map(|block| Case::new(&file, block.trim_matches('\n'))).collect::<Vec<_>>()
    });
    cases.filter(|case| !case.sql.ends_with(ENDLESS)).collect()
}
