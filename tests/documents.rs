//! Are README, docs and samples true? Policies in them must load, files they name must exist.
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use rowseal::config;

fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(name: &str) -> String {
    fs::read_to_string(package().join(name)).unwrap()
}

#[test]
fn the_policies_in_readme_and_samples_load() {
    let readme = read("README.md");
    let shown = readme.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let samples = ["config/rowseal.toml", "config/demo.toml", "docker/rowseal.toml"].map(|name| (name, read(name)));
    for (name, text) in samples.into_iter().chain([("README.md", shown.to_owned())]) {
        if let Err(error) = config::parse(&text, Path::new(name), &|_| None) {
            panic!("{name}: {error}");
        }
    }
}

#[test]
fn the_files_that_documents_link_to_exist() {
    let docs = fs::read_dir(package().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let documents = docs.filter(|path| path.extension().is_some_and(|e| e == "md"));
    let missing: Vec<String> =
        documents.chain([package().join("README.md")]).flat_map(|path| dead_links(&path)).collect();
    assert!(missing.is_empty(), "\n{}\n", missing.join("\n"));
}

/// Targets of `](target)` that are no files; addresses and anchors are not looked at.
fn dead_links(document: &PathBuf) -> Vec<String> {
    let text = fs::read_to_string(document).unwrap();
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let files = targets.map(|target| target.split('#').next().unwrap()).filter(|t| !t.is_empty() && !t.contains("://"));
    let dead = files.filter(|target| !document.parent().unwrap().join(target).exists());
    dead.map(|target| format!("{}: {target}", document.display())).collect()
}

/// docs/architecture.md names files by folder and file; each must be there.
#[test]
fn the_source_files_that_the_architecture_names_exist() {
    let text = read("docs/architecture.md");
    let named = text.split('`').skip(1).step_by(2).filter(|word| word.contains('/') && !word.contains(['<', ' ']));
    let missing: Vec<&str> = named.filter(|word| !package().join("src").join(word).exists()).collect();
    let planned = ["jobs/", "admin/"];
    let missing: Vec<&str> = missing.into_iter().filter(|word| !planned.contains(word)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// docs/errors.md has a row for every SQLSTATE that the proxy raises, and no other.
#[test]
fn every_sqlstate_is_documented() {
    let source = read("src/refusal.rs");
    let raised: BTreeSet<&str> =
        source.lines().filter_map(|line| line.trim().strip_suffix("\",")?.split("=> \"").nth(1)).collect();
    let text = read("docs/errors.md");
    let documented: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(' ').next())
        .filter(|word| *word != "SQLSTATE")
        .collect();
    assert!(raised.len() > 20);
    assert_eq!(raised, documented);
}
