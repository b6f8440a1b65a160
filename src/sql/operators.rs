//! What may be done with a sealed value: the one table. What is not listed is refused.
//!
//! docs/sql.md is made from these entries and from the statements in `docs`, by a test.
use sqlparser::ast::BinaryOperator;

use super::inside::Kind;

/// What becomes of an operator or function over a sealed column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    /// Comparison of tokens with the same operator, or with this one against a list.
    Tokens { many: &'static str },
    /// Left as it is: only asks whether the value is NULL.
    NullOnly,
    /// Gives its argument, or one row's: the value is passed on.
    Value,
    /// Gives an array of its argument's values.
    Array,
    /// Gives the first of its arguments that is not NULL.
    FirstOf,
    /// NULLIF: compares tokens and passes the value on.
    NullIf,
    /// Builds a json or jsonb of its arguments.
    Document(Make, Kind),
    /// Refused.
    Refused,
}

/// What a document is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Make {
    /// One value of any type.
    Value,
    /// One row.
    Row,
    /// One array.
    Array,
    /// The values of many rows, as a list.
    List,
    /// The arguments, as a list.
    Places,
    /// Keys and values, one after the other.
    Object,
    /// The keys and values of many rows.
    Map,
}

/// One line of the table.
pub(super) struct Entry<T> {
    /// The operator or function.
    pub(super) form: T,
    pub(super) rule: Rule,
    /// What a reader of docs/sql.md should know.
    pub(super) note: &'static str,
}

const fn entry<T>(form: T, rule: Rule, note: &'static str) -> Entry<T> {
    Entry { form, rule, note }
}

const ORDER: &str = "needs the order of the values, which tokens do not show";
const INSIDE: &str = "needs the value itself, which the server does not have";

const BUILDS: &str = "the document is opened where it reaches the client";
const KEYS: &str = "as values; the keys of a jsonb must be literals or text parameters";
const VALUES: &str = "as values; not as keys";

/// Operators.
pub(super) const OPERATORS: &[Entry<BinaryOperator>] = &[
    entry(BinaryOperator::Eq, Rule::Tokens { many: "IN" }, "compares tokens; also with IN, ANY, ALL and rows"),
    entry(BinaryOperator::NotEq, Rule::Tokens { many: "NOT IN" }, "compares tokens; also with ANY, ALL and rows"),
    entry(BinaryOperator::Lt, Rule::Refused, ORDER),
    entry(BinaryOperator::LtEq, Rule::Refused, ORDER),
    entry(BinaryOperator::Gt, Rule::Refused, ORDER),
    entry(BinaryOperator::GtEq, Rule::Refused, ORDER),
    entry(BinaryOperator::StringConcat, Rule::Refused, INSIDE),
    entry(BinaryOperator::PGRegexMatch, Rule::Refused, INSIDE),
    entry(BinaryOperator::Plus, Rule::Refused, INSIDE),
];

/// Functions.
pub(super) const FUNCTIONS: &[Entry<&str>] = &[
    entry("count", Rule::NullOnly, "counts cells; with DISTINCT it counts tokens"),
    entry("coalesce", Rule::FirstOf, "over one column, NULL, literals and parameters"),
    entry("nullif", Rule::NullIf, "compares tokens and gives the column"),
    entry("any_value", Rule::Value, "gives one of the values"),
    entry("array_agg", Rule::Array, "gives an array; one element of it can be taken: `(array_agg(column))[1]`"),
    entry("first_value", Rule::Value, "gives the value of another row"),
    entry("last_value", Rule::Value, "gives the value of another row"),
    entry("lag", Rule::Value, "gives the value of another row; without a default"),
    entry("lead", Rule::Value, "gives the value of another row; without a default"),
    entry("min", Rule::Refused, ORDER),
    entry("max", Rule::Refused, ORDER),
    entry("lower", Rule::Refused, INSIDE),
    entry("length", Rule::Refused, INSIDE),
    entry("string_agg", Rule::Refused, INSIDE),
    entry("jsonb_set", Rule::Refused, INSIDE),
    entry("to_json", Rule::Document(Make::Value, Kind::Json), BUILDS),
    entry("to_jsonb", Rule::Document(Make::Value, Kind::Jsonb), BUILDS),
    entry("row_to_json", Rule::Document(Make::Row, Kind::Json), BUILDS),
    entry("array_to_json", Rule::Document(Make::Array, Kind::Json), BUILDS),
    entry("json_agg", Rule::Document(Make::List, Kind::Json), BUILDS),
    entry("jsonb_agg", Rule::Document(Make::List, Kind::Jsonb), BUILDS),
    entry("json_agg_strict", Rule::Document(Make::List, Kind::Json), BUILDS),
    entry("jsonb_agg_strict", Rule::Document(Make::List, Kind::Jsonb), BUILDS),
    entry("json_build_array", Rule::Document(Make::Places, Kind::Json), BUILDS),
    entry("jsonb_build_array", Rule::Document(Make::Places, Kind::Jsonb), BUILDS),
    entry("json_build_object", Rule::Document(Make::Object, Kind::Json), KEYS),
    entry("jsonb_build_object", Rule::Document(Make::Object, Kind::Jsonb), KEYS),
    entry("json_object_agg", Rule::Document(Make::Map, Kind::Json), VALUES),
    entry("jsonb_object_agg", Rule::Document(Make::Map, Kind::Jsonb), VALUES),
    entry("json_object_agg_strict", Rule::Document(Make::Map, Kind::Json), VALUES),
    entry("jsonb_object_agg_strict", Rule::Document(Make::Map, Kind::Jsonb), VALUES),
    entry("json_object_agg_unique", Rule::Document(Make::Map, Kind::Json), VALUES),
    entry("jsonb_object_agg_unique", Rule::Document(Make::Map, Kind::Jsonb), VALUES),
];

/// Why an operator is refused, where the table says so.
pub(super) fn why_not(op: &BinaryOperator) -> Option<&'static str> {
    OPERATORS.iter().find(|entry| entry.form == *op && entry.rule == Rule::Refused).map(|entry| entry.note)
}

/// The rule of a binary operator.
pub(super) fn operator(op: &BinaryOperator) -> Rule {
    OPERATORS.iter().find(|entry| entry.form == *op).map_or(Rule::Refused, |entry| entry.rule)
}

/// The rule of a function, by its name without a schema (or in `pg_catalog`).
pub(super) fn function(name: &[String]) -> Rule {
    let bare = match name {
        [name] => name,
        [schema, name] if schema == "pg_catalog" => name,
        _ => return Rule::Refused,
    };
    FUNCTIONS.iter().find(|entry| entry.form == bare).map_or(Rule::Refused, |entry| entry.rule)
}
