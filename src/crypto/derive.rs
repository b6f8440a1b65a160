//! The whole key derivation, and what is authenticated, on one page.
//!
//! ```text
//! DEK        ── HKDF-Expand("rowseal/v1/cell" ‖ suite ‖ LP(column)) ──► K_enc 32 ‖ commitment 32
//! branch key ── HKDF-Expand("rowseal/v1/wrap" ‖ dek_id)             ──► KW 32
//! index root ── HKDF-Expand("rowseal/v1/eq" ‖ LP(scope))            ──► token key 32
//! index root ── HKDF-Expand("rowseal/v1/mask" ‖ LP(scope))          ──► mask key 32
//! ```
//! HKDF is with SHA-256. There is no extract step: the three roots are uniformly random. LP(x) is the length of x in
//! 4 bytes, then x. No label is a prefix of another, so no two derivations can meet.
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use super::{Binding, DekId, IndexRoot, KeyId};

const CELL_LABEL: &[u8] = b"rowseal/v1/cell";
const WRAP_LABEL: &[u8] = b"rowseal/v1/wrap";
const TOKEN_LABEL: &[u8] = b"rowseal/v1/eq";
const MASK_LABEL: &[u8] = b"rowseal/v1/mask";

/// What a DEK gives for one column.
///
/// # Secrets
/// Zeroized on drop. The commitment alone is stored in clear.
pub(super) struct CellKeys {
    /// K_enc, the AES key.
    pub(super) encryption: Zeroizing<[u8; 32]>,
    /// Commits the cell to its DEK, which AES-GCM alone does not.
    pub(super) commitment: [u8; 32],
}

/// Derives encryption key and commitment of the cells of one column under one DEK.
pub(super) fn cell_keys(dek: &Root, suite: u8, column: &str) -> CellKeys {
    let mut okm = Zeroizing::new([0; 64]);
    let info = [CELL_LABEL, &[suite], &length(column.as_bytes()), column.as_bytes()];
    dek.expand(&info, okm.as_mut_slice());
    let mut keys = CellKeys { encryption: Zeroizing::new([0; 32]), commitment: [0; 32] };
    keys.encryption.copy_from_slice(&okm[..32]);
    keys.commitment.copy_from_slice(&okm[32..]);
    keys
}

/// Derives the key that wraps one DEK under a branch key.
pub(super) fn wrap_key(branch: &Root, dek_id: &DekId) -> Zeroizing<[u8; 32]> {
    let mut key = Zeroizing::new([0; 32]);
    branch.expand(&[WRAP_LABEL, &dek_id.0], key.as_mut_slice());
    key
}

/// Derives the key of all tokens of one scope (a column id or a join group).
pub(super) fn token_key(root: &IndexRoot, scope: &str) -> Zeroizing<[u8; 32]> {
    scoped_key(root, TOKEN_LABEL, scope)
}

/// Derives the key of all hashes that masks of one scope show: another one than that of the tokens, which are stored.
pub(super) fn mask_key(root: &IndexRoot, scope: &str) -> Zeroizing<[u8; 32]> {
    scoped_key(root, MASK_LABEL, scope)
}

fn scoped_key(root: &IndexRoot, label: &[u8], scope: &str) -> Zeroizing<[u8; 32]> {
    let mut key = Zeroizing::new([0; 32]);
    let info = [label, &length(scope.as_bytes()), scope.as_bytes()];
    Root::new(root.expose()).expand(&info, key.as_mut_slice());
    key
}

/// What is authenticated with a cell's payload: LP(tenant) ‖ LP(column) ‖ header bytes 0 to 5 ‖ LP(extensions) ‖ dek_id.
pub(super) fn cell_aad(binding: &Binding<'_>, header: &[u8; 6], extensions: &[u8], dek_id: &DekId) -> Vec<u8> {
    let (tenant, column) = (binding.tenant.as_bytes(), binding.column.as_bytes());
    let mut aad = Vec::with_capacity(tenant.len() + column.len() + extensions.len() + 34);
    for field in [&length(tenant), tenant, &length(column), column, header, &length(extensions), extensions] {
        aad.extend_from_slice(field);
    }
    aad.extend_from_slice(&dek_id.0);
    aad
}

/// What is authenticated with a wrapped DEK: tenant ‖ key_id ‖ dek_id. The ids have fixed lengths and stand last.
pub(super) fn wrap_aad(tenant: &str, key_id: &KeyId, dek_id: &DekId) -> Vec<u8> {
    [tenant.as_bytes(), &key_id.0, &dek_id.0].concat()
}

/// One of the three roots, made ready for several derivations: the hash of the key itself is made once.
///
/// # Secrets
/// As good as the root. Lives while a row or a batch is worked on; no Debug or Clone.
pub(super) struct Root(Hkdf<Sha256>);

impl Root {
    pub(super) fn new(root: &[u8; 32]) -> Self {
        Root(Hkdf::from_prk(root).expect("32 bytes are a whole SHA-256 output"))
    }

    fn expand(&self, info: &[&[u8]], out: &mut [u8]) {
        self.0.expand_multi_info(info, out).expect("at most 64 bytes are asked for");
    }
}

fn length(field: &[u8]) -> [u8; 4] {
    u32::try_from(field.len()).expect("names are far shorter than 4 GiB").to_be_bytes()
}
