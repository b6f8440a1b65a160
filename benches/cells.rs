//! What one cell costs: seal, open, token, wrap. Keys are warm; no I/O except drawing the nonce where it says so.
#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rowseal::crypto::{
    Binding, BranchKey, Cell, Dek, DekId, IndexRoot, KeyId, OwnedSlot, Padding, SealInput, TokenKey, WrapAlgorithm,
    open, random_bytes, replace_slot, seal, token, unwrap_dek, wrap_dek,
};

const BINDING: Binding<'_> = Binding { tenant: "acme", column: "public.customers.email" };
const VALUE_LENS: [usize; 4] = [4, 16, 256, 4096];

fn slot() -> OwnedSlot {
    OwnedSlot {
        dek_id: DekId::random(),
        algorithm: WrapAlgorithm::Kms,
        key_id: KeyId::random(),
        wrapped: Bytes::from(random_bytes::<184>().to_vec()),
    }
}

fn input<'a>(value: &'a [u8], slot: &'a OwnedSlot) -> SealInput<'a> {
    SealInput { binding: BINDING, type_tag: 1, value, token: None, padding: Padding::Padme, slot }
}

fn bench_seal(c: &mut Criterion) {
    let (dek, slot, nonce) = (Dek::random(), slot(), random_bytes());
    let mut group = c.benchmark_group("seal");
    let mut out = Vec::new();
    for len in VALUE_LENS {
        let value = vec![b'x'; len];
        group.throughput(Throughput::Elements(1));
        group.bench_with_input(BenchmarkId::from_parameter(len), &value, |b, value| {
            b.iter(|| {
                out.clear();
                seal(&input(black_box(value), &slot), &dek, nonce, &mut out).is_ok()
            });
        });
    }
    group.finish();
}

fn bench_open(c: &mut Criterion) {
    let (dek, slot) = (Dek::random(), slot());
    let mut group = c.benchmark_group("parse_and_open");
    for len in VALUE_LENS {
        let mut cell = Vec::new();
        seal(&input(&vec![b'x'; len], &slot), &dek, random_bytes(), &mut cell).expect("seals");
        group.throughput(Throughput::Elements(1));
        group.bench_with_input(BenchmarkId::from_parameter(len), &cell, |b, cell| {
            b.iter(|| Cell::parse(black_box(cell)).and_then(|cell| open(&cell, &BINDING, &dek)).is_ok());
        });
    }
    group.finish();
}

fn bench_keys(c: &mut Criterion) {
    let (dek, branch, root) = (Dek::random(), BranchKey::random(), IndexRoot::random());
    let (dek_id, key_id) = (DekId::random(), KeyId::random());
    let wrapped = wrap_dek(&branch, "acme", key_id, dek_id, &dek);
    let token_key = TokenKey::derive(&root, "public.customers.email");
    c.bench_function("token", |b| b.iter(|| token(&root, "public.customers.email", black_box(b"ada@example.com"))));
    c.bench_function("token/derived_key", |b| b.iter(|| token_key.token(black_box(b"ada@example.com"))));
    c.bench_function("wrap_dek", |b| b.iter(|| wrap_dek(&branch, "acme", key_id, dek_id, black_box(&dek))));
    c.bench_function("unwrap_dek", |b| {
        b.iter(|| unwrap_dek(&branch, "acme", key_id, dek_id, black_box(&wrapped)).is_ok());
    });
    c.bench_function("random_nonce", |b| b.iter(random_bytes::<12>));
}

fn bench_rotation(c: &mut Criterion) {
    let (dek, old) = (Dek::random(), slot());
    let new = OwnedSlot { dek_id: old.dek_id, ..slot() };
    let mut cell = Vec::new();
    seal(&input(b"ada@example.com", &old), &dek, random_bytes(), &mut cell).expect("seals");
    c.bench_function("replace_slot", |b| b.iter(|| replace_slot(black_box(&cell), &new).is_ok()));
}

criterion_group!(benches, bench_seal, bench_open, bench_keys, bench_rotation);
criterion_main!(benches);
