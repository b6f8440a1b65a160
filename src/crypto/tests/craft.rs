//! Makes the test vectors: cells put together by hand as docs/format.md says, with fixed keys and nonces, without
//! `seal`. So what `seal` writes and what the page says are held against each other.
mod broken;
mod good;

use std::collections::BTreeMap;

use super::vectors::Vector;
use crate::crypto::{Dek, DekId, IndexRoot, KeyId, aead, derive, token, wrap};

const TENANT: &str = "acme";
const COLUMN: &str = "public.customers.email";
const ADA: &[u8] = b"ada@example.com";
/// All that a cell is made of, in clear.
#[derive(Clone)]
struct Parts {
    tenant: &'static str,
    column: &'static str,
    dek: [u8; 32],
    /// Under which key the payload is encrypted, where that is not `dek`: a cell with two keys.
    payload_dek: Option<[u8; 32]>,
    branch_key: Option<[u8; 32]>,
    index_root: Option<([u8; 32], &'static str)>,
    /// Magic to flags.
    header: [u8; 6],
    extensions: Vec<u8>,
    dek_id: [u8; 16],
    algorithm: u8,
    key_id: [u8; 16],
    blob: Vec<u8>,
    nonce: [u8; 12],
    type_tag: u8,
    value: Vec<u8>,
    /// Padding rule and its fixed length, as in the files.
    padding: (u8, Option<u32>),
    /// The plaintext, where it is not type tag, length, value and `zeros` zero bytes.
    plaintext: Option<Vec<u8>>,
    zeros: usize,
}

/// A text in direct mode: no token, no padding.
fn plain() -> Parts {
    Parts {
        tenant: TENANT,
        column: COLUMN,
        dek: counting(0x00),
        payload_dek: None,
        branch_key: None,
        index_root: None,
        header: [0xC1, 0x52, 0x53, 1, 1, 0],
        extensions: vec![],
        dek_id: counting(0x40),
        algorithm: 1,
        key_id: counting(0x50),
        blob: (0..184).map(|at| at ^ 0xA5).collect(),
        nonce: counting(0x60),
        type_tag: 1,
        value: ADA.to_vec(),
        padding: (0, None),
        plaintext: None,
        zeros: 0,
    }
}

/// A text in direct mode, padded by Padmé: 20 bytes of plaintext are 20.
fn padded() -> Parts {
    Parts { header: [0xC1, 0x52, 0x53, 1, 1, 1], padding: (1, None), ..plain() }
}

/// A searchable text in hierarchical mode, padded: what most cells look like.
fn searchable() -> Parts {
    Parts { branch_key: Some(counting(0x80)), index_root: Some((counting(0xA0), COLUMN)), algorithm: 2, ..padded() }
}

/// A plain cell with these extensions.
fn extended(extensions: &[u8]) -> Parts {
    Parts { header: [0xC1, 0x52, 0x53, 1, 1, 2], extensions: extensions.to_vec(), ..plain() }
}

fn counting<const N: usize>(first: u8) -> [u8; N] {
    std::array::from_fn(|at| first.wrapping_add(at as u8))
}

impl Parts {
    fn plaintext(&self) -> Vec<u8> {
        self.plaintext.clone().unwrap_or_else(|| {
            let length = (self.value.len() as u32).to_be_bytes();
            [&[self.type_tag][..], &length, &self.value, &vec![0; self.zeros]].concat()
        })
    }

    fn token(&self) -> Vec<u8> {
        let root = self.index_root.map(|(root, scope)| token(&IndexRoot::from_bytes(root), scope, &self.value));
        root.map_or(vec![], |token| token.0.to_vec())
    }

    fn wrapped(&self) -> Vec<u8> {
        let Some(branch) = self.branch_key else {
            return self.blob.clone();
        };
        let (key_id, dek_id) = (KeyId(self.key_id), DekId(self.dek_id));
        let key = derive::wrap_key(&derive::Root::new(&branch), &dek_id);
        let aad = derive::wrap_aad(self.tenant, &key_id, &dek_id);
        wrap::wrap_with_iv(&key, counting(0x70), &aad, &Dek::from_bytes(self.dek)).to_vec()
    }

    /// LP(tenant) ‖ LP(column) ‖ header 0 to 5 ‖ LP(extensions) ‖ dek_id.
    fn aad(&self) -> Vec<u8> {
        let lp = |field: &[u8]| [&(field.len() as u32).to_be_bytes()[..], field].concat();
        let names = [lp(self.tenant.as_bytes()), lp(self.column.as_bytes())].concat();
        [&names[..], &self.header, &lp(&self.extensions), &self.dek_id].concat()
    }

    fn cell(&self) -> Vec<u8> {
        let (token, wrapped, mut payload) = (self.token(), self.wrapped(), self.plaintext());
        let keys = derive::cell_keys(&derive::Root::new(&self.dek), 1, self.column);
        let payload_keys = derive::cell_keys(&derive::Root::new(&self.payload_dek.unwrap_or(self.dek)), 1, self.column);
        let tag = aead::encrypt(&payload_keys.encryption, &self.nonce, &self.aad(), &mut payload).ok().unwrap();
        let head = [&self.header[..], &[token.len() as u8, self.extensions.len() as u8], &token, &self.extensions];
        let slot = [&self.dek_id[..], &[self.algorithm], &self.key_id, &(wrapped.len() as u16).to_be_bytes(), &wrapped];
        [head.concat(), slot.concat(), self.nonce.to_vec(), keys.commitment.to_vec(), payload, tag.to_vec()].concat()
    }

    /// The file for this cell, or for what was made of it.
    fn vector(&self, expect: &str, comment: &str, cell: Vec<u8>) -> Vector {
        let mut fields: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        let mut put = |name: &str, bytes: &[u8]| fields.insert(name.to_owned(), bytes.to_vec());
        put("expect", expect.as_bytes());
        put("tenant", self.tenant.as_bytes());
        put("column", self.column.as_bytes());
        put("dek", &self.dek);
        if let Some(branch) = self.branch_key {
            put("branch_key", &branch);
        }
        if let Some((root, scope)) = self.index_root {
            put("index_root", &root);
            put("scope", scope.as_bytes());
        }
        if expect == "opens" {
            put("type_tag", &[self.type_tag]);
            put("value", &self.value);
        }
        if expect == "opens" && self.extensions.is_empty() && cell == self.cell() {
            put("nonce", &self.nonce);
            put("padding", &[self.padding.0]);
            if let Some(fixed) = self.padding.1 {
                put("fixed", &fixed.to_be_bytes());
            }
        }
        put("cell", &cell);
        Vector { comment: comment.to_owned(), fields }
    }
}

/// All vectors, by file name.
pub(super) fn recipes() -> BTreeMap<String, Vector> {
    let mut all = Recipes::default();
    good::good(&mut all);
    broken::does_not_parse(&mut all);
    broken::slot_does_not_parse(&mut all);
    broken::extensions_do_not_parse(&mut all);
    broken::does_not_unwrap(&mut all);
    broken::does_not_open(&mut all);
    broken::plaintext_is_malformed(&mut all);
    broken::has_another_token(&mut all);
    all.0
}

#[derive(Default)]
struct Recipes(BTreeMap<String, Vector>);

impl Recipes {
    fn add(&mut self, name: &str, vector: Vector) {
        assert!(self.0.insert(name.to_owned(), vector).is_none(), "{name} twice");
    }

    fn good(&mut self, name: &str, comment: &str, parts: Parts) {
        let cell = parts.cell();
        self.add(&format!("good-{name}"), parts.vector("opens", comment, cell));
    }

    /// A cell of these parts as they are fails.
    fn bad(&mut self, name: &str, comment: &str, parts: Parts) {
        self.spoilt(name, comment, parts, |_| {});
    }

    /// A cell of these parts fails once it is spoilt. The first word of the name says where.
    fn spoilt(&mut self, name: &str, comment: &str, parts: Parts, spoil: impl FnOnce(&mut Vec<u8>)) {
        let mut cell = parts.cell();
        spoil(&mut cell);
        let expect = match name.split('-').next() {
            Some("parse") => "does not parse",
            Some("unwrap") => "does not unwrap",
            Some("open") => "does not open",
            Some("token") => "has another token",
            _ => panic!("{name} says no stage"),
        };
        self.add(name, parts.vector(expect, comment, cell));
    }
}
