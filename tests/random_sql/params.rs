//! Parameters as clients send them: declared or not, in text or in binary form.
use super::grammar::Dice;

/// A parameter of a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Param {
    pub text: Option<String>,
    /// The type that it is for.
    pub kind: &'static str,
    /// OID of the type that the client declares; 0 for none.
    pub oid: u32,
    /// Its binary form, if it is sent so.
    pub binary: Option<Vec<u8>>,
}

impl Param {
    pub fn new(text: Option<String>, kind: &'static str) -> Param {
        Param { text, kind, oid: 0, binary: None }
    }

    /// The same as some client might send it. Beside others it is not declared as of a larger type, which would become
    /// theirs too.
    pub fn dressed(mut self, dice: &mut Dice, is_only: bool, kind: &str) -> Param {
        // Columns of VALUES have the type of what stands in them.
        let unified = matches!(kind, "insert from values" | "update from values" | "merge");
        if dice.one_in(3) {
            self.oid = match (self.kind.trim_end_matches("[]"), dice.below(4)) {
                _ if self.kind.ends_with("[]") => array_oid(self.kind),
                ("text", 0) if !unified => 1043,
                ("varchar(12)", 0) => 25,
                ("int4", 0) if is_only => 20,
                (kind, _) => oid(kind),
            };
        }
        if dice.one_in(3) {
            let kind = if self.oid == 20 { "int8" } else { self.kind };
            self.binary = self.text.as_deref().and_then(|text| binary(text, kind));
        }
        self
    }

    /// Its format code and bytes.
    pub fn sent(&self) -> (i16, Option<&[u8]>) {
        match &self.binary {
            Some(bytes) => (1, Some(bytes)),
            None => (0, self.text.as_deref().map(str::as_bytes)),
        }
    }
}

fn oid(kind: &str) -> u32 {
    match kind {
        "text" => 25,
        "varchar(12)" => 1043,
        "int8" => 20,
        "int4" => 23,
        "numeric" | "numeric(12,2)" => 1700,
        "uuid" => 2950,
        "date" => 1082,
        "timestamptz" => 1184,
        "jsonb" => 3802,
        _ => panic!("{kind}"),
    }
}

fn array_oid(kind: &str) -> u32 {
    match kind {
        "text[]" => 1009,
        "varchar[]" => 1015,
        "int8[]" => 1016,
        "int4[]" => 1007,
        "numeric[]" => 1231,
        "uuid[]" => 2951,
        "date[]" => 1182,
        "timestamptz[]" => 1185,
        "jsonb[]" => 3807,
        _ => panic!("{kind}"),
    }
}

/// The binary form, of the types that have an easy one.
fn binary(text: &str, kind: &str) -> Option<Vec<u8>> {
    match kind {
        "text" | "varchar(12)" => Some(text.as_bytes().to_vec()),
        "int8" => text.parse::<i64>().ok().map(|n| n.to_be_bytes().to_vec()),
        "int4" => text.parse::<i32>().ok().map(|n| n.to_be_bytes().to_vec()),
        "uuid" => uuid::Uuid::parse_str(text).ok().map(|id| id.as_bytes().to_vec()),
        "jsonb" => Some([b"\x01", text.as_bytes()].concat()),
        _ => None,
    }
}
