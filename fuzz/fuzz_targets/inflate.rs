//! The inflater beside libdeflate and zlib-rs: whole and cut streams, fronts, pairs; bytes and verdicts.
//!
//! An input is a few bytes of choices, then one stream or two (`streams`). libFuzzer takes as long to think about an input as
//! decoding it takes, so [`ROUNDS`] more executions follow, each of the last one's input changed once more, by numbers that the
//! first input gives: a fault that is found comes again with the same input.
#![no_main]

use std::cell::RefCell;

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};

#[path = "../compare.rs"]
mod compare;
#[allow(dead_code)]
#[path = "../../rust/filters/inflate/mod.rs"]
mod inflate;
#[path = "../streams/mod.rs"]
mod streams;

/// Executions for each input of libFuzzer's, besides its own.
const ROUNDS: u32 = 31;
/// Most bytes of an input.
const LONGEST: usize = 2048;

/// What decodes, what changes inputs from round to round, and the input at hand.
struct Bench {
    decoders: compare::Decoders,
    mutator: streams::Mutator,
    input: Box<[u8]>,
}

thread_local! {
    static BENCH: RefCell<Bench> = RefCell::new(Bench {
        decoders: compare::Decoders::new(),
        mutator: streams::Mutator::new(|_, len, _| len),
        input: vec![0; LONGEST].into_boxed_slice(),
    });
    static MUTATOR: RefCell<streams::Mutator> = RefCell::new(streams::Mutator::new(fuzzer_mutate));
}

fuzz_target!(|input: &[u8]| BENCH.with_borrow_mut(|Bench { decoders, mutator, input: changed }| {
    let mut len = input.len().min(LONGEST);
    changed[..len].copy_from_slice(&input[..len]);
    decoders.compare(&streams::Case::read(&changed[..len]));
    let seed = inflate::adler32(input);
    for round in 0..ROUNDS {
        len = mutator.mutate(changed, len, LONGEST, seed.wrapping_mul(ROUNDS).wrapping_add(round));
        decoders.compare(&streams::Case::read(&changed[..len]));
    }
}));

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    MUTATOR.with_borrow_mut(|mutator| mutator.mutate(data, size, max_size, seed))
});
