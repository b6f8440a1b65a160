//! The list of tenants that `rowseal tenant register --from` reads.
//!
//! One tenant a line: its name, or its name, a tab and `direct` or `hierarchical`. Blank lines and lines that begin with
//! `#`, which no name does, say nothing. A file with a mistake is refused as a whole, by line numbers: it may be another
//! file than was meant, so nothing of it is repeated.
use std::collections::HashMap;
use std::fs;
use std::io::{Read, stdin};
use std::path::Path;

use crate::cli::Failure;
use crate::jobs::enrolment::Entrant;
use crate::keys::registry::Wrapping;
use crate::keys::registry::register::check_name;

/// How many mistakes are told.
const MISTAKES_MAX: usize = 20;

/// Reads the file; `-` is standard input.
///
/// # Errors
/// [`Failure::Usage`] with the lines that are wrong.
pub(super) fn read(path: &Path, usual: Wrapping) -> Result<Vec<Entrant>, Failure> {
    let shown = path.display();
    let mut bytes = Vec::new();
    let read = if path == Path::new("-") {
        stdin().read_to_end(&mut bytes).map(drop)
    } else {
        fs::read(path).map(|read| bytes = read)
    };
    read.map_err(|error| Failure::Usage(format!("{shown}: {error}")))?;
    parse(&bytes, usual).map_err(|mistakes| refused(&format!("{shown}: nothing was begun"), &mistakes, Failure::Usage))
}

/// Says which lines are wrong.
pub(super) fn refused(what: &str, mistakes: &[(usize, String)], kind: fn(String) -> Failure) -> Failure {
    let mut text = what.to_owned();
    for (line, mistake) in mistakes.iter().take(MISTAKES_MAX) {
        text += &format!("\n  line {line}: {mistake}");
    }
    if mistakes.len() > MISTAKES_MAX {
        text += &format!("\n  and {} more", mistakes.len() - MISTAKES_MAX);
    }
    kind(text)
}

fn parse(bytes: &[u8], usual: Wrapping) -> Result<Vec<Entrant>, Vec<(usize, String)>> {
    let (mut entrants, mut mistakes) = (Vec::new(), Vec::new());
    let mut modes: HashMap<&str, Wrapping> = HashMap::new();
    for (number, line) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        match entry(line, usual) {
            Ok(None) => {}
            Ok(Some((name, wrapping))) => match modes.insert(name, wrapping) {
                None => entrants.push(Entrant { name: name.into(), wrapping, line: number }),
                Some(before) if before == wrapping => {}
                Some(_) => mistakes.push((number, "the same tenant in another mode than in a line above".to_owned())),
            },
            Err(mistake) => mistakes.push((number, mistake)),
        }
    }
    if mistakes.is_empty() { Ok(entrants) } else { Err(mistakes) }
}

fn entry(line: &[u8], usual: Wrapping) -> Result<Option<(&str, Wrapping)>, String> {
    let text = std::str::from_utf8(line).map_err(|_| "not UTF-8".to_owned())?;
    if text.trim().is_empty() || text.starts_with('#') {
        return Ok(None);
    }
    let (name, wrapping) = match text.split_once('\t') {
        None => (text, usual),
        Some((name, "direct")) => (name, Wrapping::Direct),
        Some((name, "hierarchical")) => (name, Wrapping::Hierarchical),
        Some(_) => return Err("behind the tab stands direct or hierarchical".to_owned()),
    };
    check_name(name).map_err(|error| error.to_string())?;
    Ok(Some((name, wrapping)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(bytes: &[u8]) -> Result<Vec<(usize, String, &'static str)>, Vec<usize>> {
        let told = |entrant: &Entrant| (entrant.line, entrant.name.to_string(), entrant.wrapping.as_str());
        let parsed = parse(bytes, Wrapping::Direct);
        parsed.map(|all| all.iter().map(told).collect()).map_err(|all| all.iter().map(|(line, _)| *line).collect())
    }

    #[test]
    fn a_line_is_a_tenant() {
        let file = b"# ours\nacme\r\n\n  \nBob & co\n".to_vec();
        assert_eq!(lines(&file), Err(vec![5]), "& is no character of a name");
        let file = "# ours\nacme\r\n\n  \nz\u{fc}rich direct\nbig\thierarchical\nacme\nlast".as_bytes();
        let named = |line, name: &str, mode| (line, name.to_owned(), mode);
        let expected = [
            named(2, "acme", "direct"),
            named(5, "z\u{fc}rich direct", "direct"),
            named(6, "big", "hierarchical"),
            named(8, "last", "direct"),
        ];
        assert_eq!(lines(file), Ok(expected.to_vec()));
        assert_eq!(lines(b""), Ok(vec![]));
    }

    #[test]
    fn mistakes_are_told_by_line_and_not_repeated() {
        let file =
            b"good\n trailing \n_rowseal\nx\tother\nx\tdirect\ty\n\xff\xfe\nzero\0\nm\tdirect\nm\thierarchical\n";
        assert_eq!(lines(file), Err(vec![2, 3, 4, 5, 6, 7, 9]));
        let Err(mistakes) = parse(b"SECRET!\n", Wrapping::Direct) else { panic!("taken") };
        let Failure::Usage(text) = refused("list: nothing was begun", &mistakes, Failure::Usage) else { panic!() };
        assert!(text.contains("line 1") && !text.contains("SECRET"), "{text}");
        let many: Vec<(usize, String)> = (1..=25).map(|line| (line, "no".to_owned())).collect();
        let Failure::Usage(text) = refused("list", &many, Failure::Usage) else { panic!() };
        assert!(text.lines().count() == 22 && text.ends_with("and 5 more"), "{text}");
    }
}
