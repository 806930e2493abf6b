//! The twin of the fast path and, in turns with it, the fast path itself, on streams as the fuzzer has them: `make miri`.
//!
//! Miri sees each access outside of the memory that a pointer was made for, and each read of memory that nobody wrote.

mod compare;
#[allow(dead_code)]
#[path = "../rust/filters/inflate/mod.rs"]
mod inflate;
mod streams;

fn main() {
    let count = std::env::args().nth(1).and_then(|count| count.parse().ok()).unwrap_or(200);
    let mut decoders = compare::Decoders::new();
    let mut mutator = streams::Mutator::new(|_, len, _| len);
    let mut input = vec![0; 1024];
    let mut len = 0;
    for seed in 0..count {
        len = mutator.mutate(&mut input, len, 1024, seed);
        if let Some(choice) = input.first_mut() {
            *choice = *choice & 0x1F | if seed % 2 == 0 { streams::TWIN } else { 0 };
        }
        decoders.compare(&streams::Case::read(&input[..len]));
    }
    println!("{}; the fast path: {}", decoders.counts, inflate::Pair::fast().is_some());
}
