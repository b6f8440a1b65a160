//! Values that the server builds around cells: JSON, arrays, rows. They can be passed on, built into others, and shown
//! to the client; nothing else.
//!
//! What goes into such a value is written at once ([`Planner::taken`]): each cell with its tenant in front where the
//! row's tenant column is in reach. Of a whole row, which stays as it is, the tenant column is a field itself.
use std::sync::Arc;

use sqlparser::ast::{CastKind, Expr, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, Query};

use super::build::Planner;
use super::expr::unsupported;
use super::extent::extent;
use super::ident::parts;
use super::inside::{Built, Field, Inside, Kind, Leaf, Whose};
use super::operand::{Kind as Written, Shape, operand, type_name};
use super::operators::{Make, Rule};
use super::query::List;
use super::scope::{Scope, ScopeColumn, ScopeRelation};
use super::sealed::{SealedRef, Ty, is_null, only_plain, refuse_use, unreadable};
use super::value::aggregated;
use crate::refusal::Refusal;
use crate::types::{Element, LogicalType};

const PLACE: &str = "inside a value that the server builds";
/// Types of a tenant column whose values can be compared inside a row: int2, int4, int8, text, varchar, bpchar, name, uuid.
const TENANT_TYPES: [u32; 8] = [21, 23, 20, 25, 1043, 1042, 19, 2950];

/// A key of an object.
enum Key {
    Literal(String),
    /// The text of a parameter.
    Param(u16),
    Unknown,
}

/// A value built around cells.
pub(super) fn built(inside: Inside) -> Ty {
    if inside.column().is_none() {
        return Ty::Plain;
    }
    Ty::Built(Box::new(Built { inside, is_text: false, has_typmod: false }))
}

/// Refuses to use such a value in some way.
pub(super) fn refuse_built(built: &Built, place: &str) -> Refusal {
    match built.inside.column() {
        Some(column) => refuse_use(column, place)
            .hint("Select the value as it is: it can be passed on, put into another one and cast to text."),
        None => unsupported("this expression"),
    }
}

/// The row of a relation as one value.
///
/// # Errors
/// The refusal for a column that may not be touched, or whose tenant cannot be compared inside a row.
pub(super) fn whole_row(relation: &ScopeRelation) -> Result<Ty, Refusal> {
    let fields = relation.columns.iter().map(|column| row_field(relation, column)).collect::<Result<_, _>>()?;
    fields_of(fields)
}

fn row_field(relation: &ScopeRelation, column: &ScopeColumn) -> Result<Field, Refusal> {
    let attribute = relation.base.as_ref().and_then(|base| base.columns.iter().find(|a| a.attnum == column.attnum));
    let inside = match &column.ty {
        Ty::Plain => Inside::Plain,
        Ty::Sealed(sealed) => Inside::Cell(row_cell(relation, sealed)?),
        Ty::Many(sealed) => return Err(refuse_use(&sealed.column, "as part of a whole row")),
        Ty::Built(built) if built.is_text => return Err(refuse_built(built, PLACE)),
        Ty::Built(built) => built.inside.clone(),
        Ty::Blocked(refusal) => return Err(refusal.clone()),
    };
    // The keys of a table's rows as JSON are its own names, whatever an alias calls them.
    let name = attribute.map(|a| a.name.clone()).or_else(|| column.name.clone());
    match (name, inside.column()) {
        (None, Some(sealed)) => Err(refuse_use(sealed, "without a name as part of a whole row")),
        (name, _) => Ok(Field { name: name.unwrap_or_default(), param: None, inside }),
    }
}

fn row_cell(relation: &ScopeRelation, sealed: &SealedRef) -> Result<Leaf, Refusal> {
    if let Some(why) = sealed.unreadable {
        return Err(unreadable(&sealed.column, why));
    }
    let home = sealed.home.and_then(|home| {
        let field = relation.columns.iter().position(|c| c.spot == Some(home))?;
        Some(Whose::Beside { field, type_oid: home.type_oid })
    });
    match home {
        Some(Whose::Beside { type_oid, .. }) if !TENANT_TYPES.contains(&type_oid) => {
            Err(refuse_use(&sealed.column, "as part of a whole row beside a tenant of this type"))
        }
        home => {
            let (column, constants) = (Arc::clone(&sealed.column), Default::default());
            Ok(Leaf { column, whose: home.unwrap_or(Whose::Unknown), constants, kind: Kind::Json })
        }
    }
}

/// A row of these fields. Two fields of one name cannot be told apart in JSON.
fn fields_of(fields: Vec<Field>) -> Result<Ty, Refusal> {
    let tenant_of = |field: &Field| match &field.inside {
        Inside::Cell(Leaf { whose: Whose::Beside { field, .. }, .. }) => Some(*field),
        _ => None,
    };
    let mut names: Vec<&str> = fields.iter().map(|field| field.name.as_str()).collect();
    names.sort_unstable();
    let twice = |name: &str| {
        let first = names.partition_point(|other| *other < name);
        names.get(first + 1) == Some(&name)
    };
    for field in &fields {
        let tenant = tenant_of(field).and_then(|at| fields.get(at));
        if let Some(column) = field.inside.column()
            && (twice(&field.name) || tenant.is_some_and(|tenant| twice(&tenant.name)))
        {
            return Err(refuse_use(column, "in a row or object with two fields of one name"));
        }
    }
    Ok(built(Inside::Fields(fields)))
}

impl Planner<'_> {
    /// What a value is inside another one. It is written as it is to be there.
    ///
    /// # Errors
    /// When it cannot stand there.
    pub(super) fn taken(&mut self, ty: Ty) -> Result<Inside, Refusal> {
        match ty {
            Ty::Plain => Ok(Inside::Plain),
            Ty::Sealed(sealed) => self.leaf(sealed).map(Inside::Cell),
            Ty::Many(sealed) => Ok(Inside::Each(Box::new(Inside::Cell(self.leaf(sealed)?)))),
            Ty::Built(built) if built.is_text => Err(refuse_built(&built, PLACE)),
            Ty::Built(built) => Ok(built.inside),
            Ty::Blocked(refusal) => Err(refusal),
        }
    }

    fn leaf(&mut self, sealed: SealedRef) -> Result<Leaf, Refusal> {
        let sealed = if self.in_aggregate { aggregated(sealed) } else { sealed };
        let whose = if self.opened(&sealed)? { Whose::Prefix } else { Whose::Unknown };
        let constants = std::mem::take(&mut self.constants).into();
        Ok(Leaf { column: sealed.column, whose, constants: super::plan::Constants(constants), kind: Kind::Json })
    }

    /// Walks something inside an aggregate, where the rows of a group are seen one by one.
    pub(super) fn within_aggregate<T>(&mut self, is_aggregate: bool, walk: impl FnOnce(&mut Self) -> T) -> T {
        let before = self.in_aggregate;
        self.in_aggregate |= is_aggregate;
        let walked = walk(self);
        self.in_aggregate = before;
        walked
    }

    /// A function that makes JSON of its arguments.
    pub(super) fn document(
        &mut self,
        (make, kind): (Make, Kind),
        list: &FunctionArgumentList,
        scope: &Scope<'_>,
    ) -> Result<Ty, Refusal> {
        let is_aggregate = matches!(make, Make::List | Make::Map);
        let types = self.within_aggregate(is_aggregate, |planner| {
            list.args.iter().map(|arg| planner.document_argument(arg, scope)).collect::<Result<Vec<_>, _>>()
        })?;
        let made = self.within_aggregate(is_aggregate, |planner| planner.made((make, kind), types, list))?;
        in_order(&made, kind)?;
        Ok(built(Inside::Json(Box::new(made.in_document(kind)), kind)))
    }

    fn document_argument(&mut self, arg: &FunctionArg, scope: &Scope<'_>) -> Result<Ty, Refusal> {
        match arg {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(e)) => self.expr(e, scope),
            FunctionArg::Unnamed(FunctionArgExpr::QualifiedWildcard(name)) => {
                let name = parts(name).ok_or_else(|| unsupported("this form of *"))?;
                scope.row_of(&name)
            }
            other => self.argument(other, Rule::Refused, scope).map(|()| Ty::Plain),
        }
    }

    fn made(
        &mut self,
        (make, kind): (Make, Kind),
        types: Vec<Ty>,
        list: &FunctionArgumentList,
    ) -> Result<Inside, Refusal> {
        match make {
            Make::Value | Make::Row | Make::Array | Make::List => {
                let (value, others) = first(types);
                others.iter().try_for_each(|ty| only_plain(ty, "in a function"))?;
                self.made_of(make, value)
            }
            Make::Places => types.into_iter().map(|ty| self.taken(ty)).collect::<Result<_, _>>().map(Inside::Places),
            Make::Object => self.object(kind, types, list),
            Make::Map => {
                let (key, values) = first(types);
                only_plain(&key, "as a key of JSON")?;
                let (value, others) = first(values);
                others.iter().try_for_each(|ty| only_plain(ty, "in a function"))?;
                self.taken(value).map(|inside| Inside::Map(Box::new(inside)))
            }
        }
    }

    /// A document of one value.
    fn made_of(&mut self, make: Make, value: Ty) -> Result<Inside, Refusal> {
        let inside = self.taken(value)?;
        match (make, &inside) {
            (_, Inside::Plain) => Ok(Inside::Plain),
            (Make::List, _) => Ok(Inside::Each(Box::new(inside))),
            (Make::Row, Inside::Fields(_)) | (Make::Array, Inside::Each(_) | Inside::Places(_)) | (Make::Value, _) => {
                Ok(inside)
            }
            _ => Err(match inside.column() {
                Some(column) => refuse_use(column, "in a function"),
                None => unsupported("this function call"),
            }),
        }
    }

    /// The keys and values of an object. Where a key is not known, the order of the values counts; that of a jsonb may be a
    /// parameter, whose text is known when the statement runs.
    fn object(&mut self, kind: Kind, types: Vec<Ty>, list: &FunctionArgumentList) -> Result<Inside, Refusal> {
        let mut fields = Vec::new();
        let mut unknown = false;
        let mut keys = Vec::new();
        let mut types = types.into_iter().zip(&list.args);
        while let Some((key, written)) = types.next() {
            only_plain(&key, "as a key of JSON")?;
            let (name, param) = match self.key(written) {
                Key::Literal(name) => (name, None),
                Key::Param(index) if kind == Kind::Jsonb => (format!("${}", index + 1), Some(index)),
                Key::Param(_) | Key::Unknown => {
                    unknown = true;
                    (String::new(), None)
                }
            };
            keys.extend(param);
            if let Some((value, _)) = types.next() {
                let inside = self.taken(value)?;
                fields.push(Field { name, param, inside });
            }
        }
        if unknown {
            return Ok(Inside::Ordered(fields.into_iter().map(|field| field.inside).collect()));
        }
        match fields_of(fields)? {
            Ty::Built(built) => {
                self.keys.extend(keys);
                Ok(built.inside)
            }
            _ => Ok(Inside::Plain),
        }
    }

    fn key(&self, written: &FunctionArg) -> Key {
        let FunctionArg::Unnamed(FunctionArgExpr::Expr(e)) = written else { return Key::Unknown };
        let Some(found) = operand(self.text, e) else { return Key::Unknown };
        let is_text = found.casts.iter().all(|cast| matches!(*cast, "text" | "varchar"));
        match &found.shape {
            Shape::Literal(text, Written::Quoted) if is_text => Key::Literal(text.to_string()),
            Shape::Param(index) if is_text && self.is_text(*index) => Key::Param(*index),
            _ => Key::Unknown,
        }
    }

    /// `ROW(a, b)` and `ROW(t.*)`.
    pub(super) fn row_call(&mut self, list: &FunctionArgumentList, scope: &Scope<'_>) -> Result<Ty, Refusal> {
        if let [FunctionArg::Unnamed(FunctionArgExpr::QualifiedWildcard(name))] = &list.args[..] {
            let name = parts(name).ok_or_else(|| unsupported("this form of *"))?;
            let Ty::Built(mut built) = scope.row_of(&name)? else { return Ok(Ty::Plain) };
            if let Inside::Fields(fields) = &mut built.inside {
                fields.iter_mut().enumerate().for_each(|(at, field)| field.name = format!("f{}", at + 1));
            }
            return Ok(Ty::Built(built));
        }
        let mut types = Vec::with_capacity(list.args.len());
        for arg in &list.args {
            types.push(match arg {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(e)) => self.expr(e, scope)?,
                other => self.argument(other, Rule::Refused, scope).map(|()| Ty::Plain)?,
            });
        }
        self.record_of(types)
    }

    /// `(a, b)`.
    pub(super) fn record(&mut self, values: &[Expr], scope: &Scope<'_>) -> Result<Ty, Refusal> {
        let types = values.iter().map(|e| self.expr(e, scope)).collect::<Result<Vec<_>, _>>()?;
        self.record_of(types)
    }

    /// A row of these values, whose fields are called f1, f2 and so on.
    fn record_of(&mut self, types: Vec<Ty>) -> Result<Ty, Refusal> {
        let mut fields = Vec::with_capacity(types.len());
        for (at, ty) in types.into_iter().enumerate() {
            fields.push(Field { name: format!("f{}", at + 1), param: None, inside: self.taken(ty)? });
        }
        fields_of(fields)
    }

    /// `ARRAY[a, b]`.
    pub(super) fn members(&mut self, values: &[Expr], scope: &Scope<'_>) -> Result<Ty, Refusal> {
        let types = values.iter().map(|e| self.expr(e, scope)).collect::<Result<Vec<_>, _>>()?;
        let sealed = types.iter().find_map(|ty| match ty {
            Ty::Sealed(sealed) | Ty::Many(sealed) => Some(Arc::clone(&sealed.column)),
            Ty::Built(built) => built.inside.column().map(Arc::clone),
            Ty::Plain | Ty::Blocked(_) => None,
        });
        if types.iter().all(|ty| matches!(ty, Ty::Plain)) {
            return Ok(Ty::Plain);
        }
        let mut places: Vec<Inside> = Vec::with_capacity(types.len());
        for (ty, e) in types.into_iter().zip(values) {
            let is_null = operand(self.text, e).is_some_and(|found| is_null(&found) && found.casts.is_empty());
            let inside = self.taken(ty)?;
            let alike = places.iter().all(|other| one_type(other, &inside));
            if !(is_null || alike && !matches!(inside, Inside::Plain | Inside::Each(_) | Inside::Places(_))) {
                return Err(sealed.map_or_else(
                    || unsupported("this array"),
                    |column| refuse_use(&column, "in an array with values of other kinds"),
                ));
            }
            places.push(inside);
        }
        let alike = |inside: &Inside| match (inside, &places[0]) {
            (Inside::Cell(leaf), Inside::Cell(first)) => leaf.column.logical == first.column.logical,
            _ => false,
        };
        let has_typmod = places.iter().all(alike);
        array_of(Inside::Places(places), has_typmod)
    }

    /// `ARRAY(SELECT ...)`.
    pub(super) fn gathered(&mut self, query: &Query, scope: &Scope<'_>) -> Result<Ty, Refusal> {
        let columns = self.subquery(query, Some(scope), List::Value)?.unwrap_or_default();
        let single = columns.len() == 1;
        for column in columns {
            match column.ty {
                Ty::Plain => {}
                ty if single => {
                    let inside = self.taken(ty)?;
                    return array_of(Inside::Each(Box::new(inside)), true);
                }
                ty => only_plain(&ty, "as the result of a subquery")?,
            }
        }
        Ok(Ty::Plain)
    }

    /// An array of what an aggregate gathers.
    pub(super) fn array_of_built(&mut self, built: Built) -> Result<Ty, Refusal> {
        if built.is_text {
            return Err(refuse_built(&built, "in an array"));
        }
        array_of(Inside::Each(Box::new(built.inside)), false)
    }

    /// A value that others read, or the client: what was still an array of values to be written is written.
    pub(super) fn settled(&mut self, ty: Ty) -> Result<Ty, Refusal> {
        match ty {
            Ty::Many(sealed) => {
                let inside = self.taken(Ty::Many(sealed))?;
                array_of(inside, false)
            }
            ty => Ok(ty),
        }
    }

    /// One of several expressions of which none is a sealed value itself: where one is built around sealed values, the
    /// others must be built alike, or stand in for it.
    pub(super) fn merged_built(&mut self, types: Vec<Ty>, exprs: &[&Expr], place: &str) -> Result<Ty, Refusal> {
        let types = types.into_iter().map(|ty| self.settled(ty)).collect::<Result<Vec<_>, _>>()?;
        let Some(whole) = types.iter().find_map(|ty| if let Ty::Built(built) = ty { Some(built) } else { None }) else {
            types.iter().try_for_each(|ty| only_plain(ty, place))?;
            return Ok(Ty::Plain);
        };
        let mut whole = whole.clone();
        for (ty, e) in types.iter().zip(exprs) {
            self.built_or_empty(&whole, ty, e, place)?;
        }
        whole.has_typmod = false;
        Ok(Ty::Built(whole))
    }

    /// A built value, or a constant without values that stands in for it: `coalesce(json_agg(column), '[]')`.
    fn built_or_empty(&mut self, whole: &Built, other: &Ty, e: &Expr, place: &str) -> Result<(), Refusal> {
        match other {
            Ty::Built(built) if built.is_text == whole.is_text && built.inside.is_like(&whole.inside) => return Ok(()),
            Ty::Plain => {}
            other => only_plain(other, place)?,
        }
        let is_document = matches!(whole.inside, Inside::Json(..));
        let is_array = matches!(whole.inside, Inside::Each(_) | Inside::Places(_));
        if is_document && is_empty_call(e) {
            return Ok(());
        }
        let Some(found) = operand(self.text, e) else { return Err(refuse_built(whole, place)) };
        match &found.shape {
            Shape::Null if found.casts.is_empty() => Ok(()),
            Shape::Literal(text, Written::Quoted)
                if is_document
                    && matches!(text.trim_ascii(), "[]" | "{}" | "null")
                    && found.casts.iter().all(|cast| matches!(*cast, "json" | "jsonb" | "text" | "varchar")) =>
            {
                Ok(())
            }
            Shape::Literal(text, _) if is_array && text.trim_ascii() == "{}" => {
                self.edit(found.range, "'{}'");
                Ok(())
            }
            _ => Err(refuse_built(whole, place)
                .hint("Write '[]', '{}' or NULL in place of a missing value, or compute it yourself.")),
        }
    }

    /// A cast of a built value: documents to json, jsonb and text, others to text. A cast of an array to the type that it
    /// is for the client is left out.
    pub(super) fn built_in_cast(&mut self, cast: &Expr, inner: &Expr, mut built: Built) -> Result<Ty, Refusal> {
        let refuse = || refuse_built(&built, "in a cast");
        let Expr::Cast { kind, .. } = cast else { return Err(refuse()) };
        let range = extent(self.text, inner).ok_or_else(refuse)?;
        let after = self.text.token_ending(range.end).ok_or_else(refuse)? + 1;
        let (to, last) = type_name(self.text, after + 1).ok_or_else(refuse)?;
        let is_own = match &built.inside {
            Inside::Each(member) => matches!(&**member, Inside::Cell(leaf) if array_name(leaf) == Some(to)),
            _ => false,
        };
        if is_own && !built.is_text && *kind == CastKind::DoubleColon {
            self.edit(range.end..self.text.tokens[last].range.end, "");
            built.has_typmod = false;
            return Ok(Ty::Built(Box::new(built)));
        }
        let is_document = matches!(built.inside, Inside::Json(..));
        match (to, built.is_text) {
            ("text" | "varchar", _) => built.is_text = true,
            ("json" | "jsonb", false) if is_document => {
                let kind = if to == "json" { Kind::Json } else { Kind::Jsonb };
                in_order(&built.inside, kind)?;
                built.inside = Inside::Json(Box::new(built.inside.in_document(kind)), kind);
            }
            _ => return Err(refuse()),
        }
        Ok(Ty::Built(Box::new(built)))
    }
}

/// Refuses to lose the order of an object's values where the cells among them are found by it.
fn in_order(inside: &Inside, kind: Kind) -> Result<(), Refusal> {
    match inside.column() {
        Some(column) if kind == Kind::Jsonb && inside.needs_order() => {
            Err(refuse_use(column, "in a jsonb with a key that is not a literal")
                .hint("Write the keys as literals or text parameters, or take json_build_object."))
        }
        _ => Ok(()),
    }
}

/// An array of such members. Arrays of arrays are of another shape.
fn array_of(inside: Inside, has_typmod: bool) -> Result<Ty, Refusal> {
    let nested = |member: &Inside| match member {
        Inside::Cell(leaf) => is_array(leaf),
        Inside::Each(_) | Inside::Places(_) => true,
        _ => false,
    };
    let is_nested = match &inside {
        Inside::Each(member) => nested(member),
        Inside::Places(places) => places.iter().any(nested),
        _ => false,
    };
    match inside.column() {
        Some(column) if is_nested => Err(refuse_use(column, "in an array of arrays")),
        Some(_) => Ok(Ty::Built(Box::new(Built { inside, is_text: false, has_typmod }))),
        None => Ok(Ty::Plain),
    }
}

/// The name of the type of an array of such values.
fn array_name(leaf: &Leaf) -> Option<&'static str> {
    Element::of(leaf.column.logical).map(|element| LogicalType::Array(element).domain())
}

fn is_array(leaf: &Leaf) -> bool {
    matches!(leaf.column.logical, LogicalType::Array(_))
}

/// True for two members that Postgres takes for one type.
fn one_type(a: &Inside, b: &Inside) -> bool {
    match (a, b) {
        // NULL.
        (Inside::Plain, _) => true,
        (Inside::Cell(a), Inside::Cell(b)) => {
            a.column.logical.without_modifier() == b.column.logical.without_modifier()
        }
        (Inside::Json(_, a), Inside::Json(_, b)) => a == b,
        (Inside::Fields(_), Inside::Fields(_)) => true,
        _ => false,
    }
}

fn first(mut types: Vec<Ty>) -> (Ty, Vec<Ty>) {
    if types.is_empty() {
        return (Ty::Plain, types);
    }
    let rest = types.split_off(1);
    (types.pop().unwrap_or(Ty::Plain), rest)
}

/// `json_build_array()` and the like.
fn is_empty_call(e: &Expr) -> bool {
    const EMPTY: [&str; 4] = ["json_build_array", "jsonb_build_array", "json_build_object", "jsonb_build_object"];
    let Expr::Function(function) = e else { return false };
    let FunctionArguments::List(list) = &function.args else { return false };
    let name = parts(&function.name).unwrap_or_default();
    let bare = match &name[..] {
        [name] => name,
        [schema, name] if schema == "pg_catalog" => name,
        _ => return false,
    };
    list.args.is_empty() && list.clauses.is_empty() && EMPTY.contains(&bare.as_str())
}
