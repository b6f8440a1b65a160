//! Is the code built as docs/architecture.md says? Reads the sources and checks the layer rules.
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// One source file without its unit tests and without comments.
struct Source {
    /// Below the package, with forward slashes: `src/wire/frame.rs`.
    path: String,
    /// Line number and code; comments are gone.
    code: Vec<(usize, String)>,
    /// Lines without unit tests, comments included.
    length: usize,
}

/// Modules that import nothing of ours.
const BOTTOM: &[&str] = &["crypto", "wire", "types"];

/// Outside crates with one home, so that an upgrade touches one folder.
const HOMES: &[(&str, &str)] = &[
    ("sqlparser", "src/sql/"),
    ("aws_sdk_kms", "src/keys/kms/aws"),
    ("aws_config", "src/keys/kms/aws"),
    ("aws_smithy_http_client", "src/keys/kms/aws"),
    ("aes_gcm", "src/crypto/"),
    ("ed25519_dalek", "src/audit/note"),
    ("rustls", "src/server/"),
    ("tokio_rustls", "src/server/"),
    ("tokio_postgres_rustls", "src/server/control"),
    ("pgwire", "src/admin/console/answer"),
];

/// What code outside tests never says.
const BANNED: &[&str] = &["todo!(", "unimplemented!(", "dbg!(", ".unwrap()", "unsafe {", "unsafe fn"];

const FILE_LINES_MAX: usize = 600;

#[test]
fn crypto_wire_and_types_import_nothing_of_ours() {
    let broken = |source: &Source| {
        let own = module(&source.path)?;
        BOTTOM.contains(&own.as_str()).then_some(())?;
        let foreign = imports(source).into_iter().find(|(_, name)| *name != own)?;
        Some(format!("{}:{} imports crate::{}", source.path, foreign.0, foreign.1))
    };
    assert_none(sources().iter().filter_map(broken).collect());
}

#[test]
fn of_the_session_only_the_driver_knows_tokio() {
    let driver = |path: &str| path.starts_with("src/session/driver");
    let machines =
        sources().into_iter().filter(|source| source.path.starts_with("src/session/") && !driver(&source.path));
    assert_none(machines.flat_map(|source| mentions(&source, "tokio")).collect());
}

#[test]
fn each_outside_crate_has_one_home() {
    let mut broken = Vec::new();
    for source in sources() {
        for (name, home) in HOMES {
            if !source.path.starts_with(home) {
                broken.extend(mentions(&source, name));
            }
        }
    }
    assert_none(broken);
}

#[test]
fn modules_do_not_import_in_circles() {
    let mut graph: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for source in sources() {
        let Some(own) = module(&source.path) else { continue };
        let others = imports(&source).into_iter().map(|(_, name)| name).filter(|name| *name != own);
        graph.entry(own.clone()).or_default().extend(others);
    }
    let circles = graph.keys().filter_map(|start| circle(&graph, start)).collect();
    assert_none(circles);
}

#[test]
fn nothing_is_left_to_do_and_nothing_unwraps() {
    let mut broken = Vec::new();
    for source in sources() {
        for (number, line) in &source.code {
            broken.extend(BANNED.iter().filter(|word| line.contains(*word)).map(|w| at(&source, *number, w)));
        }
    }
    assert_none(broken);
}

#[test]
fn files_stay_readable() {
    let long = |source: &Source| source.length > FILE_LINES_MAX;
    let told = |source: &Source| format!("{} has {} lines", source.path, source.length);
    assert_none(sources().iter().filter(|source| long(source)).map(told).collect());
}

#[test]
fn every_source_file_says_what_it_is() {
    let silent = |path: &PathBuf| !fs::read_to_string(path).unwrap().starts_with("//!");
    assert_none(code_files().into_iter().filter(silent).map(|path| path.display().to_string()).collect());
}

/// The text is for readers of the project: no path of a machine it was written on.
#[test]
fn no_file_names_the_machine_it_was_written_on() {
    let machine_paths = [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/tmp/com", "mon")];
    let mut broken = Vec::new();
    let text = ["src", "tests", "docs", "scripts", "config", "docker", "benches"];
    let found = text.iter().flat_map(|folder| files(folder, ""));
    for path in found.chain(["README.md", "CHANGELOG.md", "Makefile"].map(|name| package().join(name))) {
        let Ok(text) = fs::read_to_string(&path) else { continue };
        let named = |word: &&&str| text.contains(**word);
        broken.extend(machine_paths.iter().filter(named).map(|word| format!("{}: {word}", path.display())));
    }
    assert_none(broken);
}

fn assert_none(broken: Vec<String>) {
    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
}

fn at(source: &Source, number: usize, what: &str) -> String {
    format!("{}:{number}: {what}", source.path)
}

/// The places where code names an outside crate.
fn mentions(source: &Source, name: &str) -> Vec<String> {
    let path = format!("{name}::");
    let import = format!("use {name}");
    let named = |line: &str| starts_word(line, &path) || starts_word(line, &import);
    source.code.iter().filter(|(_, line)| named(line)).map(|(number, _)| at(source, *number, name)).collect()
}

/// True if `needle` stands in `line` and is not the tail of a longer name or path.
fn starts_word(line: &str, needle: &str) -> bool {
    line.match_indices(needle).any(|(start, _)| {
        let before = line[..start].chars().next_back();
        let after = line[start + needle.len()..].chars().next();
        let ends = needle.ends_with(':') || !after.is_some_and(|c| c.is_alphanumeric() || c == '_');
        ends && !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
    })
}

/// The modules of ours that a file names, with the line.
fn imports(source: &Source) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in &source.code {
        for part in line.split("crate::").skip(1) {
            for name in first_names(part) {
                found.push((*number, name));
            }
        }
    }
    found
}

/// `keys::Need` → keys; `{keys, sql::plan}` → keys, sql. Names of macros and items at the root are no modules.
fn first_names(part: &str) -> Vec<String> {
    let name = |text: &str| text.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let names: Vec<String> = match part.strip_prefix('{') {
        Some(list) => top_level_items(list).iter().map(|item| name(item)).collect(),
        None => vec![name(part)],
    };
    names.into_iter().filter(|name| is_module(name)).collect()
}

/// The items of a `use` list, not those inside nested braces.
fn top_level_items(list: &str) -> Vec<String> {
    let mut depth = 0usize;
    let mut items = vec![String::new()];
    for c in list.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => items.push(String::new()),
            _ if depth == 0 => items.last_mut().unwrap().push(c),
            _ => {}
        }
    }
    items
}

fn is_module(name: &str) -> bool {
    let src = package().join("src");
    src.join(name).is_dir() || (name != "lib" && name != "main" && src.join(format!("{name}.rs")).is_file())
}

/// The way from a module back to itself, if there is one.
fn circle(graph: &BTreeMap<String, BTreeSet<String>>, start: &str) -> Option<String> {
    let mut open = vec![vec![start.to_owned()]];
    let mut seen = BTreeSet::new();
    while let Some(way) = open.pop() {
        for next in graph.get(way.last()?).into_iter().flatten() {
            if next == start {
                return Some(format!("{} → {start}", way.join(" → ")));
            }
            if seen.insert(next.clone()) {
                open.push([way.clone(), vec![next.clone()]].concat());
            }
        }
    }
    None
}

/// `src/wire/frame.rs` and `src/wire.rs` → wire; the two crate roots → `None`.
fn module(path: &str) -> Option<String> {
    let name = path.strip_prefix("src/")?.split('/').next()?.trim_end_matches(".rs");
    (name != "lib" && name != "main").then(|| name.to_owned())
}

fn sources() -> Vec<Source> {
    code_files().iter().map(|path| read(path)).collect()
}

/// The files of src/ without unit tests and what only they use.
fn code_files() -> Vec<PathBuf> {
    let all = files("src", "rs");
    let tests: Vec<PathBuf> = all.iter().flat_map(|path| test_modules(path)).collect();
    let only_tests =
        |path: &PathBuf| tests.iter().any(|test| path.starts_with(test) || *path == test.with_extension("rs"));
    all.into_iter().filter(|path| !only_tests(path)).collect()
}

/// The modules that a file declares under `#[cfg(test)]`, as paths without extension.
fn test_modules(path: &Path) -> Vec<PathBuf> {
    let text = fs::read_to_string(path).unwrap();
    let root = ["mod.rs", "lib.rs", "main.rs"].iter().any(|name| path.ends_with(name));
    let home = if root { path.parent().unwrap().to_owned() } else { path.with_extension("") };
    let lines: Vec<&str> = text.lines().collect();
    let declared = (0..lines.len()).filter_map(|start| test_module(&lines[start..]));
    declared.filter_map(|module| module.strip_suffix(';')).map(|name| home.join(name)).collect()
}

/// `#[cfg(test)]`, further attributes, `mod x;`: gives `x;`.
fn test_module<'a>(lines: &[&'a str]) -> Option<&'a str> {
    (*lines.first()? == "#[cfg(test)]").then_some(())?;
    let item =
        lines.iter().find(|line| !line.starts_with("#[") && !line.starts_with(' ') && !line.starts_with(")]"))?;
    item.trim_start_matches("pub(crate) ").trim_start_matches("pub(super) ").strip_prefix("mod ")
}

fn read(path: &Path) -> Source {
    let text = fs::read_to_string(path).unwrap();
    let mut code = Vec::new();
    let mut in_test = false;
    for (index, line) in text.lines().enumerate() {
        in_test |= line == "#[cfg(test)]";
        if !in_test {
            code.push((index + 1, without_comment(line)));
        } else if ends_item(line) {
            in_test = false;
        }
    }
    let path = path.strip_prefix(package()).unwrap().to_string_lossy().replace('\\', "/");
    Source { path, length: code.len(), code }
}

/// The last line of an item that begins in the first column.
fn ends_item(line: &str) -> bool {
    line == "}" || (line.ends_with([';', '}']) && !line.starts_with([' ', '#', '/']))
}

/// A line without its `//` comment; a `//` after a quotation mark or in a URL is kept.
fn without_comment(line: &str) -> String {
    let comment = line.match_indices("//").find(|(start, _)| {
        let before = &line[..*start];
        before.matches('"').count().is_multiple_of(2) && !before.ends_with(':')
    });
    comment.map_or(line, |(start, _)| &line[..start]).to_owned()
}

fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files below a folder, with that extension or, if it is empty, with any.
fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![package().join(folder)];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else if extension.is_empty() || path.extension().is_some_and(|e| e == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}
