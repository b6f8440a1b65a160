//! Where cells stand inside a value that the server builds: JSON, arrays, rows. A part of the plan.
use std::sync::Arc;

use super::plan::Constants;
use crate::policy::Column;
pub use crate::types::Document as Kind;

/// A value that the server builds around cells, as one output column gives it.
#[derive(Debug, Clone)]
pub struct Built {
    /// What is inside.
    pub inside: Inside,
    /// True when the statement casts it to text: then it has its text form in either format.
    pub is_text: bool,
    /// True for an array that has the type modifier of its members, as `ARRAY[column]` has.
    pub has_typmod: bool,
}

/// What a value consists of, as far as cells are concerned. Within [`Inside::Json`] everything is a part of a document.
#[derive(Debug, Clone)]
pub enum Inside {
    /// No cells.
    Plain,
    /// One cell.
    Cell(Leaf),
    /// An array whose members are all alike.
    Each(Box<Inside>),
    /// An array known member by member.
    Places(Vec<Inside>),
    /// A row; as JSON an object with these keys.
    Fields(Vec<Field>),
    /// A json object whose keys are not known, with its values in order. A jsonb has an order of its own.
    Ordered(Vec<Inside>),
    /// A JSON object under whose keys all values are alike.
    Map(Box<Inside>),
    /// A json or jsonb.
    Json(Box<Inside>, Kind),
}

/// A field of a row, or a key of an object with its value.
#[derive(Debug, Clone)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// The client's parameter (counted from 0) whose text the name is; the name above is then one that no key has.
    pub param: Option<u16>,
    /// Its value.
    pub inside: Inside,
}

/// A cell inside a value.
#[derive(Debug, Clone)]
pub struct Leaf {
    /// The column it belongs to.
    pub column: Arc<Column>,
    /// Where the tenant that its row names is found.
    pub whose: Whose,
    /// Literals of the statement that may stand in place of it.
    pub constants: Constants,
    /// How it is written where it is a part of a document.
    pub kind: Kind,
}

/// Where a built value says whose row a cell comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// Nowhere: the table has no tenant column, or it is out of reach.
    Unknown,
    /// In front of the cell: the text was edited to `rowseal.with_tenant(cell, tenant)`.
    Prefix,
    /// In a field of the same row, whose type has this OID.
    Beside {
        /// Counted from 0.
        field: usize,
        /// OID of its type.
        type_oid: u32,
    },
}

impl Inside {
    /// The first sealed column in it.
    pub fn column(&self) -> Option<&Arc<Column>> {
        match self {
            Inside::Plain => None,
            Inside::Cell(leaf) => Some(&leaf.column),
            Inside::Each(inside) | Inside::Map(inside) | Inside::Json(inside, _) => inside.column(),
            Inside::Places(places) | Inside::Ordered(places) => places.iter().find_map(Inside::column),
            Inside::Fields(fields) => fields.iter().find_map(|field| field.inside.column()),
        }
    }

    /// As a part of a document of this type.
    #[must_use]
    pub fn in_document(self, of: Kind) -> Self {
        match self {
            Inside::Plain => Inside::Plain,
            // What is once in a jsonb keeps its form when the jsonb becomes a part of a json.
            Inside::Json(inside, Kind::Json) => inside.in_document(of),
            Inside::Json(inside, Kind::Jsonb) => *inside,
            Inside::Cell(leaf) if of == Kind::Jsonb => Inside::Cell(Leaf { kind: of, ..leaf }),
            Inside::Cell(leaf) => Inside::Cell(leaf),
            Inside::Each(inside) => Inside::Each(Box::new(inside.in_document(of))),
            Inside::Map(inside) => Inside::Map(Box::new(inside.in_document(of))),
            Inside::Places(places) => Inside::Places(places.into_iter().map(|place| place.in_document(of)).collect()),
            Inside::Ordered(values) => Inside::Ordered(values.into_iter().map(|value| value.in_document(of)).collect()),
            Inside::Fields(fields) => Inside::Fields(
                fields.into_iter().map(|field| Field { inside: field.inside.in_document(of), ..field }).collect(),
            ),
        }
    }

    /// Puts the texts of parameters in the place of keys. Of several values under one key a jsonb keeps the last.
    pub fn bind_keys(&mut self, key: &dyn Fn(u16) -> Option<String>) {
        match self {
            Inside::Plain | Inside::Cell(_) => {}
            Inside::Each(inside) | Inside::Map(inside) | Inside::Json(inside, _) => inside.bind_keys(key),
            Inside::Places(places) | Inside::Ordered(places) => {
                places.iter_mut().for_each(|place| place.bind_keys(key))
            }
            Inside::Fields(fields) => {
                let mut is_bound = false;
                for field in fields.iter_mut() {
                    field.inside.bind_keys(key);
                    if let Some(name) = field.param.take().and_then(key) {
                        (field.name, is_bound) = (name, true);
                    }
                }
                if is_bound {
                    let mut later = std::collections::HashSet::new();
                    fields.reverse();
                    fields.retain(|field| later.insert(field.name.clone()));
                    fields.reverse();
                }
            }
        }
    }

    /// True when cells are found in it by the order of an object's values.
    pub fn needs_order(&self) -> bool {
        match self {
            Inside::Plain | Inside::Cell(_) => false,
            Inside::Ordered(_) => true,
            Inside::Each(inside) | Inside::Map(inside) | Inside::Json(inside, _) => inside.needs_order(),
            Inside::Places(places) => places.iter().any(Inside::needs_order),
            Inside::Fields(fields) => fields.iter().any(|field| field.inside.needs_order()),
        }
    }

    /// True when both have the same cells at the same places.
    pub fn is_like(&self, other: &Inside) -> bool {
        match (self, other) {
            (Inside::Plain, Inside::Plain) => true,
            (Inside::Cell(a), Inside::Cell(b)) => {
                let bare = a.constants.0.is_empty() && b.constants.0.is_empty();
                bare && a.column.qualified == b.column.qualified && a.whose == b.whose && a.kind == b.kind
            }
            (Inside::Json(a, kind), Inside::Json(b, other)) => kind == other && a.is_like(b),
            (Inside::Each(a), Inside::Each(b)) | (Inside::Map(a), Inside::Map(b)) => a.is_like(b),
            (Inside::Places(a), Inside::Places(b)) | (Inside::Ordered(a), Inside::Ordered(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.is_like(b))
            }
            (Inside::Fields(a), Inside::Fields(b)) => {
                let same = |(a, b): (&Field, &Field)| a.name == b.name && a.inside.is_like(&b.inside);
                a.len() == b.len() && a.iter().zip(b).all(same)
            }
            (
                Inside::Plain
                | Inside::Cell(_)
                | Inside::Each(_)
                | Inside::Places(_)
                | Inside::Fields(_)
                | Inside::Ordered(_)
                | Inside::Map(_)
                | Inside::Json(..),
                _,
            ) => false,
        }
    }
}
