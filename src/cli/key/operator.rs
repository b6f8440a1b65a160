//! Who types the command, for the audit log.

/// `ROWSEAL_OPERATOR`, where a shared account says who really is at work, else the name of the operating system's user.
pub(super) fn name() -> String {
    let named = std::env::var("ROWSEAL_OPERATOR").ok().filter(|name| !name.is_empty());
    named.unwrap_or_else(|| {
        let id = rustix::process::getuid().as_raw();
        let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        user(&users, id).unwrap_or_else(|| format!("uid {id}"))
    })
}

fn user(users: &str, id: u32) -> Option<String> {
    let of = |line: &str| {
        let mut fields = line.split(':');
        let (name, found) = (fields.next()?, fields.nth(1)?);
        (found.parse() == Ok(id)).then(|| name.to_owned())
    };
    users.lines().find_map(of)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_its_id() {
        let users = "root:x:0:0:root:/root:/bin/sh\nbroken\nada:x:1000:1000::/home/ada:/bin/sh\n";
        assert_eq!(user(users, 1000).as_deref(), Some("ada"));
        assert_eq!(user(users, 1), None);
    }
}
