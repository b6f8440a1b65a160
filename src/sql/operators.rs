//! What may be done with a sealed value: the one table. What is not listed is refused.
use sqlparser::ast::BinaryOperator;

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
    /// Refused.
    Refused,
}

const OPERATORS: &[(BinaryOperator, Rule)] =
    &[(BinaryOperator::Eq, Rule::Tokens { many: "IN" }), (BinaryOperator::NotEq, Rule::Tokens { many: "NOT IN" })];

const FUNCTIONS: &[(&str, Rule)] = &[
    ("count", Rule::NullOnly),
    ("coalesce", Rule::FirstOf),
    ("nullif", Rule::NullIf),
    ("any_value", Rule::Value),
    ("array_agg", Rule::Array),
    ("first_value", Rule::Value),
    ("last_value", Rule::Value),
    ("lag", Rule::Value),
    ("lead", Rule::Value),
];

/// The rule of a binary operator.
pub(super) fn operator(op: &BinaryOperator) -> Rule {
    OPERATORS.iter().find(|(known, _)| known == op).map_or(Rule::Refused, |(_, rule)| *rule)
}

/// The rule of a function, by its name without a schema (or in `pg_catalog`).
pub(super) fn function(name: &[String]) -> Rule {
    let bare = match name {
        [name] => name,
        [schema, name] if schema == "pg_catalog" => name,
        _ => return Rule::Refused,
    };
    FUNCTIONS.iter().find(|(known, _)| known == bare).map_or(Rule::Refused, |(_, rule)| *rule)
}
