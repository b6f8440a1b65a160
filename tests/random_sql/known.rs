//! Differences that are known, each with its reason.

/// Why two answers may differ, if they may.
pub fn reason(_sql: &str, plain: &str, sealed: &str, elsewhere: bool) -> Option<&'static str> {
    if elsewhere && plain != sealed {
        // The proxy plans with the schema it read last.
        return Some("the schema was changed from elsewhere");
    }
    None
}
