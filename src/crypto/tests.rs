//! Can stored data ever stop opening, and does anything open that should not?
//!
//! `vectors.rs` opens the files in tests/data/cells, `craft.rs` made them; here are the properties.
#![allow(clippy::unwrap_used, reason = "a test that unwraps fails where it should")]
mod craft;
mod vectors;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const BINDING: Binding<'_> = Binding { tenant: "acme", column: "public.customers.email" };

/// A key, its branch and a slot that wraps it.
struct Row {
    dek: Dek,
    branch: BranchKey,
    slot: OwnedSlot,
}

impl Row {
    fn new() -> Self {
        let (dek, branch) = (Dek::random(), BranchKey::random());
        let (dek_id, key_id) = (DekId::random(), KeyId::random());
        let wrapped = Bytes::copy_from_slice(&wrap_dek(&branch, "acme", key_id, dek_id, &dek));
        Self { dek, branch, slot: OwnedSlot { dek_id, algorithm: WrapAlgorithm::Branch, key_id, wrapped } }
    }

    fn seal(&self, value: &[u8], token: Option<Token>, padding: Padding) -> Vec<u8> {
        let mut out = Vec::new();
        let input = SealInput { binding: BINDING, type_tag: 7, value, token, padding, slot: &self.slot };
        seal(&input, &self.dek, random_bytes(), &mut out).unwrap();
        out
    }
}

fn opens(cell: &[u8], binding: &Binding<'_>, dek: &Dek) -> Option<(u8, Vec<u8>)> {
    let cell = Cell::parse(cell).ok()?;
    let plaintext = open(&cell, binding, dek).ok()?;
    Some((plaintext.type_tag(), plaintext.value().to_vec()))
}

fn any_padding() -> impl Strategy<Value = Padding> {
    prop_oneof![Just(Padding::None), Just(Padding::Padme), (0_u32..600).prop_map(Padding::Fixed)]
}

fn flip(bytes: &[u8], bit: usize) -> Vec<u8> {
    let mut flipped = bytes.to_vec();
    flipped[bit / 8] ^= 1 << (bit % 8);
    flipped
}

proptest! {
    #[test]
    fn what_was_sealed_opens(
        value in vec(any::<u8>(), 0..500),
        type_tag: u8,
        token in proptest::option::of(any::<[u8; 16]>()),
        blob in proptest::option::of(vec(any::<u8>(), 1..300)),
        padding in any_padding(),
        (tenant, column) in (".{0,12}", ".{1,24}"),
    ) {
        let mut row = Row::new();
        if let Some(blob) = blob {
            row.slot = OwnedSlot { algorithm: WrapAlgorithm::Kms, wrapped: blob.into(), ..row.slot };
        }
        let binding = Binding { tenant: &tenant, column: &column };
        let input = SealInput { binding, type_tag, value: &value, token: token.map(Token), padding, slot: &row.slot };
        let mut cell = b"kept".to_vec();
        seal(&input, &row.dek, random_bytes(), &mut cell).unwrap();
        prop_assert!(cell.starts_with(b"kept"));
        let cell = &cell[4..];
        prop_assert!(looks_like_cell(cell) && cell.len() >= CELL_LEN_MIN);
        prop_assert_eq!(opens(cell, &binding, &row.dek), Some((type_tag, value)));
        let parsed = Cell::parse(cell).unwrap_or_else(|_| unreachable!());
        prop_assert_eq!(parsed.slot().owned(), row.slot);
        prop_assert_eq!(parsed.token.copied(), token);
        prop_assert_eq!(parsed.is_padded(), padding != Padding::None);
    }

    #[test]
    fn any_bytes_parse_or_are_refused(bytes in vec(any::<u8>(), 0..400)) {
        let _ = Cell::parse(&bytes).is_ok();
    }

    #[test]
    fn any_bytes_behind_a_header_parse_or_are_refused(
        flags in 0_u8..4, token_len in prop_oneof![Just(0_u8), Just(16), any::<u8>()], x: u8, rest in vec(any::<u8>(), 0..900),
    ) {
        let mut bytes = vec![0xC1, 0x52, 0x53, 1, 1, flags, token_len, x];
        bytes.extend(rest);
        prop_assert!(opens(&bytes, &BINDING, &Dek::random()).is_none());
    }

    #[test]
    fn padded_cells_of_equal_padded_length_have_equal_length(a in 0_usize..65, b in 0_usize..65) {
        let row = Row::new();
        let len = |n| row.seal(&vec![1; n], None, Padding::Fixed(64)).len();
        prop_assert_eq!(len(a), len(b));
    }
}

#[test]
fn every_bit_flip_is_caught() {
    let row = Row::new();
    let root = IndexRoot::random();
    let token = token(&root, "email", b"ada@example.com");
    for padding in [Padding::None, Padding::Padme] {
        let cell = row.seal(b"ada@example.com", Some(token), padding);
        for bit in 0..cell.len() * 8 {
            assert!(!survives(&flip(&cell, bit), &row, &token), "{padding:?}: bit {bit} can be flipped");
        }
        assert!(survives(&cell, &row, &token));
    }
}

/// The whole road of a read: parse, unwrap what the slot says, open, check the token.
fn survives(cell: &[u8], row: &Row, token: &Token) -> bool {
    let Ok(cell) = Cell::parse(cell) else {
        return false;
    };
    let slot = cell.slot();
    unwrap_dek(&row.branch, "acme", slot.key_id, slot.dek_id, slot.wrapped)
        .and_then(|dek| open(&cell, &BINDING, &dek))
        .and_then(|_| check_token(&cell, token))
        .is_ok()
}

#[test]
fn bit_flips_outside_slot_and_token_fail_even_with_the_right_key() {
    let row = Row::new();
    let cell = row.seal(b"42", None, Padding::Padme);
    // dek_id stands at 8, algorithm at 24, key_id at 25 to 40, w at 41, the wrapped key at 43 to 102.
    let replaced_by_rotation = |byte: usize| (25..41).contains(&byte) || (43..103).contains(&byte);
    for bit in 0..cell.len() * 8 {
        let opened = opens(&flip(&cell, bit), &BINDING, &row.dek).is_some();
        assert_eq!(opened, replaced_by_rotation(bit / 8), "bit {bit}");
    }
}

#[test]
fn no_truncation_and_no_extra_byte_opens() {
    let row = Row::new();
    let cell = row.seal(b"ada@example.com", Some(Token([9; 16])), Padding::Padme);
    for len in 0..cell.len() {
        assert!(opens(&cell[..len], &BINDING, &row.dek).is_none(), "opens when cut to {len} bytes");
        assert!(opens(&cell[cell.len() - len..], &BINDING, &row.dek).is_none());
    }
    for extra in [0, 1, 0xFF] {
        assert!(opens(&[&cell[..], &[extra]].concat(), &BINDING, &row.dek).is_none());
    }
}

#[test]
fn a_cell_does_not_open_elsewhere() {
    let row = Row::new();
    let cell = row.seal(b"v", None, Padding::None);
    let elsewhere = [
        Binding { tenant: "acme2", ..BINDING },
        Binding { tenant: "", ..BINDING },
        Binding { column: "public.customers.name", ..BINDING },
        Binding { tenant: BINDING.column, column: BINDING.tenant },
        Binding { tenant: "acmep", column: "ublic.customers.email" },
    ];
    for binding in elsewhere {
        assert!(opens(&cell, &binding, &row.dek).is_none(), "{binding:?}");
    }
    assert!(opens(&cell, &BINDING, &Dek::random()).is_none());
}

#[test]
fn a_damaged_slot_does_not_unwrap() {
    let row = Row::new();
    let OwnedSlot { dek_id, key_id, ref wrapped, .. } = row.slot;
    let unwraps =
        |tenant, key_id, dek_id, wrapped: &[u8]| unwrap_dek(&row.branch, tenant, key_id, dek_id, wrapped).ok();
    let dek = unwraps("acme", key_id, dek_id, wrapped).unwrap();
    assert_eq!(dek.expose(), row.dek.expose());
    for bit in 0..WRAPPED_LEN * 8 {
        assert!(unwraps("acme", key_id, dek_id, &flip(wrapped, bit)).is_none(), "wrapped bit {bit}");
    }
    for bit in 0..128 {
        let flipped: [u8; 16] = flip(&key_id.0, bit).try_into().unwrap();
        assert!(unwraps("acme", KeyId(flipped), dek_id, wrapped).is_none(), "key_id bit {bit}");
        let flipped: [u8; 16] = flip(&dek_id.0, bit).try_into().unwrap();
        assert!(unwraps("acme", key_id, DekId(flipped), wrapped).is_none(), "dek_id bit {bit}");
    }
    assert!(unwraps("acm", key_id, dek_id, wrapped).is_none());
    for len in 0..WRAPPED_LEN {
        assert!(unwraps("acme", key_id, dek_id, &wrapped[..len]).is_none());
    }
    assert!(unwrap_dek(&BranchKey::random(), "acme", key_id, dek_id, wrapped).is_err());
}

#[test]
fn a_slot_is_replaced_without_touching_the_payload() {
    let row = Row::new();
    let cell = row.seal(b"v", Some(Token([3; 16])), Padding::Padme);
    let new = OwnedSlot {
        dek_id: row.slot.dek_id,
        algorithm: WrapAlgorithm::Kms,
        key_id: KeyId::random(),
        wrapped: Bytes::from_static(&[5; 184]),
    };
    let rotated = replace_slot(&cell, &new).unwrap();
    assert_eq!(Cell::parse(&rotated).ok().unwrap().slot().owned(), new);
    assert_eq!(opens(&rotated, &BINDING, &row.dek), Some((7, b"v".to_vec())));
    assert_eq!(replace_slot(&rotated, &row.slot).unwrap(), cell);
}

#[test]
fn a_slot_alone_is_read_as_it_stands_in_a_cell() {
    let row = Row::new();
    let bytes = row.slot.to_bytes().unwrap();
    assert_eq!(OwnedSlot::parse(&bytes), Ok(row.slot.clone()));
    let cell = row.seal(b"value", None, Padding::None);
    assert!(cell.windows(bytes.len()).any(|part| part == bytes));
    assert_eq!(OwnedSlot::parse(&[&bytes[..], b"x"].concat()), Err(OpenError::Damaged));
    for at in 0..bytes.len() {
        assert_eq!(OwnedSlot::parse(&bytes[..at]), Err(OpenError::Damaged));
    }
    let mut unknown = bytes;
    unknown[16] = 3;
    assert_eq!(OwnedSlot::parse(&unknown), Err(OpenError::Damaged));
}

#[test]
fn a_slot_of_another_data_key_or_of_impossible_length_replaces_nothing() {
    let row = Row::new();
    let cell = row.seal(b"v", None, Padding::None);
    let mut bad = [row.slot.clone(), row.slot.clone(), row.slot.clone(), row.slot.clone()];
    bad[0].dek_id = DekId::random();
    bad[1].wrapped = row.slot.wrapped.slice(1..);
    bad[2] = OwnedSlot { algorithm: WrapAlgorithm::Kms, wrapped: Bytes::new(), ..row.slot.clone() };
    bad[3] = OwnedSlot { algorithm: WrapAlgorithm::Kms, wrapped: vec![0; 65_536].into(), ..row.slot.clone() };
    for slot in &bad {
        assert_eq!(replace_slot(&cell, slot), Err(OpenError::Damaged));
    }
    for slot in &bad[1..] {
        let mut out = b"kept".to_vec();
        let input = SealInput { binding: BINDING, type_tag: 1, value: b"v", token: None, padding: Padding::None, slot };
        assert_eq!(seal(&input, &row.dek, random_bytes(), &mut out), Err(SealError::BadSlot));
        assert_eq!(out, b"kept");
    }
    assert_eq!(replace_slot(&cell[1..], &row.slot), Err(OpenError::Damaged));
}

#[test]
fn what_postgres_cannot_store_is_not_sealed() {
    let row = Row::new();
    let padding = Padding::Fixed(u32::MAX);
    let input = SealInput { binding: BINDING, type_tag: 1, value: b"v", token: None, padding, slot: &row.slot };
    let mut out = Vec::new();
    assert_eq!(seal(&input, &row.dek, random_bytes(), &mut out), Err(SealError::TooLong { value_len: 1 }));
    assert!(out.is_empty());
}

#[test]
fn a_value_that_looks_like_a_cell_is_sealed_as_data() {
    let row = Row::new();
    let inner = row.seal(b"v", None, Padding::None);
    let outer = row.seal(&inner, None, Padding::None);
    assert_eq!(opens(&outer, &BINDING, &row.dek), Some((7, inner)));
}

#[test]
fn tokens_depend_on_root_scope_and_value_alone() {
    let (a, b) = (IndexRoot::from_bytes([1; 32]), IndexRoot::from_bytes([2; 32]));
    let one = token(&a, "codes", b"x");
    assert_eq!(one, TokenKey::derive(&a, "codes").token(b"x"));
    for other in [token(&b, "codes", b"x"), token(&a, "code", b"x"), token(&a, "codes", b"y"), token(&a, "codes", b"")]
    {
        assert_ne!(one, other);
    }
    assert_eq!(format!("{one:?}"), "Token(..)");
}

#[test]
fn a_missing_token_matches_nothing() {
    let row = Row::new();
    let bare = row.seal(b"v", None, Padding::None);
    let bare = Cell::parse(&bare).ok().unwrap();
    assert!(!bare.token_matches(&Token([0; 16])));
    assert_eq!(check_token(&bare, &Token([0; 16])), Err(OpenError::Damaged));
}

#[test]
fn the_same_value_sealed_twice_shares_only_header_token_and_slot() {
    let row = Row::new();
    let (a, b) = (row.seal(b"v", None, Padding::Padme), row.seal(b"v", None, Padding::Padme));
    let (a, b) = (Cell::parse(&a).ok().unwrap(), Cell::parse(&b).ok().unwrap());
    assert_ne!(a.nonce, b.nonce);
    assert_ne!(a.ciphertext, b.ciphertext);
}

#[test]
fn ids_are_shown_as_hex() {
    assert_eq!(DekId([0x0A; 16]).to_string(), "0a".repeat(16));
    assert_eq!(KeyId([0xF0; 16]).to_string(), "f0".repeat(16));
    assert_ne!(DekId::random(), DekId::random());
}
