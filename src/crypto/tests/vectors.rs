//! The test vectors in tests/data/cells: each file says what must happen to its cell, and it must happen for ever.
//!
//! The files are append-only. To add one, describe it in `craft.rs` and run
//! `ROWSEAL_WRITE_VECTORS=1 cargo test --lib crypto::tests::vectors`; files that exist are never written again.
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::craft;
use crate::crypto::*;

/// One file: comment lines, then `name = value` lines, where a value is "text" or hex.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Vector {
    pub(super) comment: String,
    pub(super) fields: BTreeMap<String, Vec<u8>>,
}

/// Fields whose bytes are written as quoted text; all others are hex.
const TEXT_FIELDS: [&str; 4] = ["expect", "tenant", "column", "scope"];
/// The order in a file.
const ORDER: [&str; 13] = [
    "expect",
    "tenant",
    "column",
    "dek",
    "branch_key",
    "index_root",
    "scope",
    "type_tag",
    "value",
    "nonce",
    "padding",
    "fixed",
    "cell",
];

impl Vector {
    fn parse(text: &str) -> Self {
        let (comments, fields): (Vec<_>, Vec<_>) =
            text.lines().filter(|line| !line.is_empty()).partition(|line| line.starts_with('#'));
        let comment = comments.iter().map(|line| line.trim_start_matches("# ")).collect::<Vec<_>>().join("\n");
        let fields = fields.iter().map(|line| parse_field(line)).collect();
        Self { comment, fields }
    }

    fn render(&self) -> String {
        let mut text = String::new();
        for line in self.comment.lines() {
            writeln!(text, "# {line}").unwrap();
        }
        text.push('\n');
        assert!(self.fields.keys().all(|name| ORDER.contains(&name.as_str())));
        for name in ORDER {
            match self.fields.get(name) {
                Some(bytes) if TEXT_FIELDS.contains(&name) => {
                    writeln!(text, "{name} = \"{}\"", str::from_utf8(bytes).unwrap()).unwrap();
                }
                Some(bytes) => {
                    let line = format!("{name} = {}", to_hex(bytes));
                    writeln!(text, "{}", line.trim_end()).unwrap();
                }
                None => {}
            }
        }
        text
    }

    fn bytes(&self, name: &str) -> &[u8] {
        self.fields.get(name).unwrap_or_else(|| panic!("no field {name}"))
    }

    fn text(&self, name: &str) -> &str {
        str::from_utf8(self.bytes(name)).unwrap()
    }

    fn array<const N: usize>(&self, name: &str) -> [u8; N] {
        self.bytes(name).try_into().unwrap_or_else(|_| panic!("{name} is not {N} bytes"))
    }

    fn binding(&self) -> Binding<'_> {
        Binding { tenant: self.text("tenant"), column: self.text("column") }
    }

    /// What happens on the road of a read, in the words of `expect`.
    fn outcome(&self) -> &'static str {
        let Ok(cell) = Cell::parse(self.bytes("cell")) else {
            return "does not parse";
        };
        if self.fields.contains_key("branch_key") && !self.unwraps(&cell) {
            return "does not unwrap";
        }
        let Ok(plaintext) = open(&cell, &self.binding(), &Dek::from_bytes(self.array("dek"))) else {
            return "does not open";
        };
        if self.fields.contains_key("index_root") && !self.carries_its_token(&cell, &plaintext) {
            return "has another token";
        }
        if plaintext.type_tag() != self.bytes("type_tag")[0] || plaintext.value() != self.bytes("value") {
            return "opens as something else";
        }
        "opens"
    }

    fn unwraps(&self, cell: &Cell<'_>) -> bool {
        let branch = BranchKey::from_bytes(self.array("branch_key"));
        let slot = cell.slot();
        unwrap_dek(&branch, self.text("tenant"), slot.key_id, slot.dek_id, slot.wrapped)
            .is_ok_and(|dek| dek.expose() == self.bytes("dek"))
    }

    fn carries_its_token(&self, cell: &Cell<'_>, plaintext: &Plaintext) -> bool {
        let root = IndexRoot::from_bytes(self.array("index_root"));
        check_token(cell, &token(&root, self.text("scope"), plaintext.value())).is_ok()
    }

    /// Seals the inputs again, where the file gives all of them.
    fn resealed(&self) -> Option<Vec<u8>> {
        let padding = match self.fields.get("padding")?[..] {
            [0] => Padding::None,
            [1] => Padding::Padme,
            _ => Padding::Fixed(u32::from_be_bytes(self.array("fixed"))),
        };
        let slot = Cell::parse(self.bytes("cell")).ok()?.slot().owned();
        let token = self.fields.get("index_root").map(|_| {
            let root = IndexRoot::from_bytes(self.array("index_root"));
            token(&root, self.text("scope"), self.bytes("value"))
        });
        let (type_tag, value) = (self.bytes("type_tag")[0], self.bytes("value"));
        let input = SealInput { binding: self.binding(), type_tag, value, token, padding, slot: &slot };
        let mut out = Vec::new();
        seal(&input, &Dek::from_bytes(self.array("dek")), self.array("nonce"), &mut out).ok()?;
        Some(out)
    }
}

fn parse_field(line: &str) -> (String, Vec<u8>) {
    let (name, value) =
        line.split_once(" = ").or(line.split_once(" =")).unwrap_or_else(|| panic!("not a field: {line}"));
    let text = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
    (name.to_owned(), text.map_or_else(|| from_hex(value), |text| text.as_bytes().to_vec()))
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(hex: &str) -> Vec<u8> {
    assert!(hex.len().is_multiple_of(2));
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/cells")
}

fn stored() -> BTreeMap<String, Vector> {
    let files = std::fs::read_dir(directory()).unwrap().map(|entry| entry.unwrap().path());
    files
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .map(|path| {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            (name, Vector::parse(&std::fs::read_to_string(&path).unwrap()))
        })
        .collect()
}

#[test]
fn stored_vectors_behave_as_they_say() {
    write_missing();
    let vectors = stored();
    for (name, vector) in &vectors {
        assert_eq!(vector.outcome(), vector.text("expect"), "{name}");
    }
    let good = vectors.values().filter(|vector| vector.text("expect") == "opens").count();
    let bad = vectors.len() - good;
    assert!(good >= 20 && bad >= 40 && bad > good, "{good} good and {bad} bad vectors");
}

#[test]
fn sealing_gives_the_stored_bytes_again() {
    write_missing();
    let mut resealed = 0;
    for (name, vector) in stored() {
        if let Some(cell) = vector.resealed() {
            assert_eq!(to_hex(&cell), to_hex(vector.bytes("cell")), "{name}");
            resealed += 1;
        }
    }
    assert!(resealed >= 20, "only {resealed} vectors can be sealed again");
}

/// Two roads to the same bytes: what the recipe crafts by hand from docs/format.md, and what is stored.
#[test]
fn recipes_still_give_the_stored_files() {
    write_missing();
    let stored = stored();
    for (name, recipe) in craft::recipes() {
        let file = stored.get(&name).unwrap_or_else(|| panic!("{name} is not stored"));
        assert!(*file == recipe, "{name} differs from its recipe");
    }
}

fn write_missing() {
    if std::env::var_os("ROWSEAL_WRITE_VECTORS").is_none() {
        return;
    }
    for (name, vector) in craft::recipes() {
        let path = directory().join(format!("{name}.txt"));
        if !path.exists() {
            std::fs::write(path, vector.render()).unwrap();
        }
    }
}
