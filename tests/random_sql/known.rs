//! Differences that are known, each with its reason.

/// Why two answers may differ, if they may.
pub fn reason(sql: &str, plain: &str, sealed: &str, elsewhere: bool) -> Option<&'static str> {
    if elsewhere {
        return Some("the schema was changed from elsewhere, and the proxy plans with the one it read last");
    }
    let error = |text: &str| text.contains("E(ERROR");
    let code = |text: &str, code: &str| text.contains(&format!("E(ERROR {code})"));
    match (error(plain), error(sealed)) {
        (false, false) if computes(sql) && without_descriptions(plain) == without_descriptions(sealed) => {
            Some("a computed column has the table column's own length, number or name")
        }
        (false, true) if code(sealed, "42702") => Some("columns of one name in a WITH that changes rows"),
        (_, true) if code(sealed, "55000") => {
            Some("a row without a tenant is refused before its constraints are looked at")
        }
        (true, true) if code(plain, "26000") => {
            Some("EXECUTE of a name that is gone is read before the server looks for it")
        }
        (true, true) if errors(plain) == errors(sealed) => {
            Some("a bad value is found when it is bound, not when it is read")
        }
        (false, true) if code(sealed, "42703") && sql.contains("RETURNING") => {
            Some("a computed column of a WITH has its own name")
        }
        (false, true) if code(sealed, "42703") && sql.starts_with("WITH") && sql.contains("nullif") => {
            Some("a computed column of a WITH has its own name")
        }
        (true, true) if code(sealed, "25P02") => Some("in a failed transaction the server is not given the text"),
        (true, false) if sql.starts_with("PREPARE") => Some("a bad value in a PREPARE is found by EXECUTE"),
        (true, _) if code(plain, "42883") => Some("an array of text is taken for one of the column's type"),
        (true, true) if code(sealed, "42601") && sql.contains("/*") => Some("a comment within an UPDATE in two steps"),
        _ => None,
    }
}

/// The replies but the descriptions of parameters and rows.
fn without_descriptions(shown: &str) -> String {
    let mut out = String::new();
    for (n, part) in shown.split(" T(").enumerate() {
        let parameters = part.strip_prefix("1 t(").and_then(|rest| rest.split_once(')'));
        let kept = if n == 0 {
            parameters.map_or(part, |(_, rest)| rest)
        } else {
            part.split_once("])").map_or(part, |(_, rest)| rest)
        };
        out += kept;
    }
    match out.strip_prefix("T(") {
        Some(rest) => rest.split_once("])").map_or(String::new(), |(_, rest)| rest.to_owned()),
        None => out,
    }
}

fn errors(shown: &str) -> Vec<&str> {
    shown.split("E(ERROR ").skip(1).map(|rest| &rest[..5.min(rest.len())]).collect()
}

/// True for a statement with columns that are not a table's own, or a parameter for a varchar.
fn computes(sql: &str) -> bool {
    const WORDS: &[&str] =
        &["nullif", "case ", "coalesce", "first_value", "tag", "except", "intersect", "union", "fetch", "execute"];
    let sql = sql.to_ascii_lowercase();
    WORDS.iter().any(|word| sql.contains(word))
}
