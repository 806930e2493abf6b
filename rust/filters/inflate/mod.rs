//! Inflate (RFC 1951) of zlib streams (RFC 1950), two at a time.
//!
//! # Why another inflater
//!
//! A chunk is decoded in microseconds, and there are hundreds of thousands of them: most of the time of reading a compressed
//! h5ad is spent in inflate. libdeflate is the best there is for one stream, and on this data it waits: for look-ups
//! that depend on each other (where the next codeword begins is known when this one is decoded), and for branches that are
//! guessed wrongly (is the next symbol a literal or a match? does the match overlap itself?), for the data is as good as
//! random in that respect. Two things help, and both need more than one stream's worth of freedom:
//!
//! - **Two streams in one loop.** Chunks are independent, so while one stream waits for its look-up, the other one's is
//!   under way.
//! - **Tokens without branches.** A token is `[literal]? [match]?`, decoded by the same instructions whichever of the two
//!   is there (`tables.rs` says how).
//!
//! # Why it can be trusted
//!
//! - The fast path (`fast.rs`, the only file with `unsafe`) has budgets, not checks: before n rounds it is made sure that input and output
//!   suffice for n tokens of the greatest length. The source of a match is compared with the output's start each time.
//! - All that is unusual (codewords longer than the tables' index, long or overlapping matches, the end of a block, anything without
//!   a meaning) and the last bytes of every stream go through one routine in safe code (`checked.rs`).
//! - **It decides no errors.** A stream is taken only if zlib and libdeflate would both take it: codes are complete, symbols have a
//!   meaning, the Adler-32 is right. Whatever is refused here is decoded again by libdeflate (a whole stream) or zlib-rs
//!   (its front), which then say what is wrong, or that nothing is.
//! - A twin in plain safe code (`scalar.rs`) decodes the same tokens from the same tables. Tests and the fuzzer hold fast
//!   path, twin, libdeflate and zlib-rs side by side (`make fuzz`), and Miri runs both (`make miri`).
//!
//! # What it runs on
//!
//! x86-64 with AVX2 and BMI2, asked once; elsewhere libdeflate does everything. `ANNFEED_INFLATE=libdeflate` in the
//! environment turns the fast path off, should it ever be under suspicion.
//!
//! Where libdeflate is faster, it does the work: a whole stream that is decoded alone always goes to it, and of a pair
//! those whose first block says so (mostly literals, or mostly long matches: `header.rs`). The front of a stream cannot
//! be had from it, so fronts stay here, but for those of more than half a chunk of that kind, which is decoded whole.
//!
//! # What was tried
//!
//! Ratios are to libdeflate 1.26, in pairs, on AMD Zen 4; `benches/inflate.rs` measures them.
//!
//! - *The place of a stream in registers* (the checked path takes it by value): indices 1.31 to 1.50 times, values 1.17
//!   to 1.23. As long as some function had its address, each token went through memory.
//! - *Tables with fewer steps*: symbols sorted in four parts side by side, codewords turned around by vector
//!   instructions, short length codewords entered into the first 256 places and copied, literals entered in steps that
//!   the compiler knows: a header takes 3.5 µs instead of 6 to 7 (indices), 2.5 instead of 3.5 (values), now 2 to 13 %
//!   of the time.
//! - *Runs instead of pairs for values with many literals* (log-normalised ones): 0.82 to 1.2 times. The style had been
//!   chosen by literals alone; long matches mean matches that overlap themselves, which pairs leave to the checked
//!   path.
//! - *Smaller tables*: 11 bits for pairs cost 2 to 8 %, 8 or 10 bits for distances 1 to 2 %. 12 bits for runs gain 1 %
//!   on counts and lose 4 % on log-normalised values.
//! - *Copying 32 bytes at a time in the checked path*: dense matrices fall from 0.50 to 0.39 times; bytes that were
//!   just stored one by one cannot be loaded together at once.
//! - *Sources that never overlap what was just stored* (wrong bytes, to see the cost): 5 %, not worth another way of
//!   copying.
//! - *Dense matrices* in pairs: 0.5 times; *byte-shuffled* indices 0.74, values 0.93. They stay with libdeflate.
//! - *Indices narrowed to 16 bits while they are written*: matches copy bytes that were written, so these have to be
//!   there as they are, and the narrow ones beside them. A pass over a chunk that has just been decoded takes 5 % of
//!   its decoding; that it comes sooner could save a part of this. Not done.
//! - *Prefixes by too little room for libdeflate and marks behind it*, as it once was. A first quarter alone, by the
//!   rate of libdeflate: indices 0.79 then and 0.98 here, values 0.80 and 0.74, dense 1.05 and 0.57 (zlib-rs: 0.53,
//!   0.37, 0.34); in pairs 1.4 to 1.5 here on indices and 0.9 to 1.1 on values. It rests on how far libdeflate writes
//!   ahead, which it does not promise. Gone.
//!
//! # How it is laid out
//!
//! `bits` reads bits, `alphabet` says what symbols mean, `code` makes a code of lengths, `tables` what the fast path
//! looks up; `stream` is a stream on its way and its budget; `header` begins a block, `fast`, `scalar` and `checked` decode
//! it, and this file takes turns.

#![cfg_attr(
    not(any(target_arch = "x86_64", test, fuzzing)),
    allow(
        dead_code,
        unused_variables,
        reason = "other processors have no fast path, and nothing else calls these parts"
    )
)]

mod alphabet;
mod bits;
mod checked;
mod code;
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "loads and stores without checks, for which budgets were made sure of")]
mod fast;
mod header;
#[cfg(any(test, fuzzing))]
mod scalar;
mod stream;
mod tables;
#[cfg(test)]
mod tests;

use std::sync::OnceLock;

#[cfg_attr(fuzzing, allow(unused_imports))]
pub(crate) use stream::SLACK;
pub(crate) use stream::Want;
#[cfg(fuzzing)]
pub(crate) use stream::adler32;
use stream::{State, Stream};
use tables::Tables;

/// The variable of the environment that turns the fast path off: `libdeflate`.
const SWITCH: &str = "ANNFEED_INFLATE";

/// How tokens are decoded.
#[derive(Clone, Copy, Debug)]
enum Path {
    #[cfg(target_arch = "x86_64")]
    Fast(fast::Fast),
    #[cfg(any(test, fuzzing))]
    Scalar,
}

/// A decoder of one or two streams at a time, with its tables.
pub(crate) struct Pair {
    path: Path,
    /// Streams that libdeflate decodes faster are left to it.
    choosy: bool,
    tables: Box<[Tables; 2]>,
}

/// A stream and the memory for it.
pub(crate) struct Job<'a> {
    /// The zlib stream; bytes behind its end are ignored.
    pub(crate) stored: &'a [u8],
    /// Where the bytes go; with [`SLACK`] bytes of room behind those wanted, the fast path goes as far as they do.
    pub(crate) out: &'a mut [u8],
    /// What is wanted of it.
    pub(crate) want: Want,
}

/// The path of this process; None where libdeflate does everything.
fn chosen() -> Option<Path> {
    static PATH: OnceLock<Option<Path>> = OnceLock::new();
    *PATH.get_or_init(|| if std::env::var_os(SWITCH).is_some_and(|v| v == "libdeflate") { None } else { fastest() })
}

/// Whether streams are decoded two at a time in this process.
pub(crate) fn is_in_pairs() -> bool {
    chosen().is_some()
}

impl Pair {
    /// A decoder, where this processor has the fast path and the environment does not turn it off.
    #[must_use]
    pub(crate) fn new() -> Option<Self> {
        chosen().map(|path| Self { choosy: true, ..Self::on(path) })
    }

    /// A decoder of everything, whether or not libdeflate is faster: for tests.
    #[must_use]
    #[cfg(any(test, fuzzing))]
    pub(crate) fn fast() -> Option<Self> {
        fastest().map(Self::on)
    }

    /// The twin of the fast path, for tests.
    #[must_use]
    #[cfg(any(test, fuzzing))]
    pub(crate) fn scalar() -> Self {
        Self::on(Path::Scalar)
    }

    #[allow(clippy::large_stack_arrays, reason = "built where it stays")]
    fn on(path: Path) -> Self {
        Self { path, choosy: false, tables: Box::new([Tables::EMPTY; 2]) }
    }

    /// Decodes a stream; the number of bytes, or None where another decoder has to decide.
    pub(crate) fn decode(&mut self, Job { stored, out, want }: Job) -> Option<usize> {
        let mut stream = Stream::new(stored, out, want, self.choosy);
        while self.attend(0, &mut stream) {
            self.run_alone(0, &mut stream);
        }
        outcome(&stream)
    }

    /// Decodes two streams in turns; each as [`decode`](Self::decode) does.
    pub(crate) fn decode_two(&mut self, [one, two]: [Job; 2]) -> [Option<usize>; 2] {
        let mut one = Stream::new(one.stored, one.out, one.want, self.choosy);
        let mut two = Stream::new(two.stored, two.out, two.want, self.choosy);
        loop {
            match (self.attend(0, &mut one), self.attend(1, &mut two)) {
                (true, true) => self.run_both(&mut one, &mut two),
                (true, false) => self.run_alone(0, &mut one),
                (false, true) => self.run_alone(1, &mut two),
                (false, false) => return [outcome(&one), outcome(&two)],
            }
        }
    }

    /// Whether libdeflate decodes a stream like this one faster, as far as its first block tells.
    pub(crate) fn is_slower(stored: &[u8]) -> bool {
        header::is_slower(&Stream::new(stored, &mut [], Want::Front(0), false))
    }

    /// Brings a stream to where it has a budget, and says whether it has one; if not, it is done or refused.
    fn attend(&mut self, which: usize, stream: &mut Stream) -> bool {
        match self.path {
            #[cfg(target_arch = "x86_64")]
            Path::Fast(proof) => proof.attend(stream, &mut self.tables[which]),
            #[cfg(any(test, fuzzing))]
            Path::Scalar => attend(stream, &mut self.tables[which]),
        }
    }

    fn run_alone(&self, which: usize, stream: &mut Stream) {
        match self.path {
            #[cfg(target_arch = "x86_64")]
            Path::Fast(proof) => proof.alone(&self.tables[which], stream),
            #[cfg(any(test, fuzzing))]
            Path::Scalar => scalar::run(stream, &self.tables[which]),
        }
    }

    fn run_both(&self, one: &mut Stream, two: &mut Stream) {
        match self.path {
            #[cfg(target_arch = "x86_64")]
            Path::Fast(proof) => proof.pair(&self.tables, one, two),
            #[cfg(any(test, fuzzing))]
            Path::Scalar => {
                scalar::run(one, &self.tables[0]);
                scalar::run(two, &self.tables[1]);
            }
        }
    }
}

/// The path of this processor.
fn fastest() -> Option<Path> {
    #[cfg(target_arch = "x86_64")]
    return fast::Fast::detect().map(Path::Fast);
    #[cfg(not(target_arch = "x86_64"))]
    return None;
}

/// See [`Pair::attend`].
#[inline(always)]
fn attend(stream: &mut Stream, tables: &mut Tables) -> bool {
    loop {
        if stream.has_front() && stream.state != State::Refused {
            stream.state = State::Done;
        }
        match stream.state {
            State::Header => header::read(stream, tables),
            // Near the end of input or output there is no budget: on by single symbols.
            State::Block if stream.budget() > 0 => return true,
            State::Block => checked::symbols(stream, tables, 1),
            State::End => stream.finish(),
            State::Done | State::Refused => return false,
        }
    }
}

fn outcome(stream: &Stream) -> Option<usize> {
    (stream.state == State::Done).then_some(stream.at.min(stream.limit))
}
