//! One execution: a stream or a pair of them, decoded by ours and by the others; bytes and verdicts are the same.

use flate2::{Decompress, FlushDecompress, Status};
use libdeflater::Decompressor;

use crate::inflate::{Job, Pair, Want};
use crate::streams::{Case, MOST_STORED};

/// Most bytes that are decoded of a stream.
const MOST: usize = 4096;
/// Most bytes of room behind what is wanted, and more than the fast path can use.
const ROOM: usize = 256;

/// Every decoder and the memory that it works in, allocated to its exact length: the sanitizer sees each byte too far.
pub struct Decoders {
    fast: Option<Pair>,
    twin: Pair,
    zlib: Decompress,
    /// Miri cannot call it.
    libdeflate: Option<Decompressor>,
    stored: [Box<[u8]>; 2],
    ours: [Box<[u8]>; 2],
    theirs: [Box<[u8]>; 2],
    scratch: Box<[u8]>,
    pub counts: Counts,
}

/// What the others make of a stream.
#[derive(Clone, Copy)]
struct Expected {
    /// Bytes that zlib-rs has of it, up to [`MOST`].
    len: usize,
    /// Both say that it is whole and right.
    whole: bool,
}

impl Decoders {
    pub fn new() -> Self {
        let memory = |len| vec![0; len].into_boxed_slice();
        Self {
            fast: Pair::fast(),
            twin: Pair::scalar(),
            zlib: Decompress::new(true),
            libdeflate: (!cfg!(miri)).then(Decompressor::new),
            stored: [memory(MOST_STORED), memory(MOST_STORED)],
            ours: [memory(MOST + ROOM), memory(MOST + ROOM)],
            theirs: [memory(MOST), memory(MOST)],
            scratch: memory(MOST),
            counts: Counts::default(),
        }
    }

    /// One execution: a stream or a pair of them, by everybody.
    pub fn compare(&mut self, case: &Case) {
        let count = case.streams().len();
        let mut expected = [Expected { len: 0, whole: false }; 2];
        for (which, stored) in case.streams().iter().enumerate() {
            expected[which] = self.ask_others(which, stored);
        }
        self.counts.count(&expected[..count]);
        let wants: [Want; 2] = std::array::from_fn(|which| case.want(which, expected[which].len, MOST));
        let [stored, other_stored] = &mut self.stored;
        let [out, other_out] = &mut self.ours;
        let one = job(case, 0, stored, out, wants[0]);
        let decoder = self.fast.as_mut().filter(|_| !case.is_for_twin()).unwrap_or(&mut self.twin);
        let decoded = if count == 2 {
            decoder.decode_two([one, job(case, 1, other_stored, other_out, wants[1])])
        } else {
            [decoder.decode(one), None]
        };
        for which in 0..count {
            let Expected { len, whole } = expected[which];
            let right = match wants[which] {
                Want::Whole(limit) => (whole && len <= limit).then_some(len),
                // Of nothing, nobody says whether it is there.
                Want::Front(0) => decoded[which],
                Want::Front(limit) => (limit <= len).then_some(limit),
            };
            assert_eq!(decoded[which], right, "stream {which}, {:?}", wants[which]);
            let len = right.unwrap_or(0);
            let (Want::Whole(limit) | Want::Front(limit)) = wants[which];
            let ours = place(case, which, &mut self.ours[which], limit);
            assert!(ours[..len] == self.theirs[which][..len], "bytes of stream {which} differ");
        }
    }

    /// What zlib-rs and libdeflate make of a stream; zlib-rs's bytes are kept.
    fn ask_others(&mut self, which: usize, stored: &[u8]) -> Expected {
        let theirs = &mut self.theirs[which];
        self.zlib.reset(true);
        let status = self.zlib.decompress(stored, theirs, FlushDecompress::Finish);
        let len = self.zlib.total_out() as usize;
        let ended = status.is_ok_and(|status| status == Status::StreamEnd);
        let Some(libdeflate) = &mut self.libdeflate else { return Expected { len, whole: ended } };
        let decompressed = libdeflate.zlib_decompress(stored, &mut self.scratch);
        let agreed = ended && decompressed == Ok(len);
        assert!(!agreed || self.scratch[..len] == theirs[..len], "the others differ");
        Expected { len, whole: agreed }
    }
}

/// A stream at the end of its memory, and its output.
fn job<'a>(case: &Case, which: usize, stored: &'a mut [u8], out: &'a mut [u8], want: Want) -> Job<'a> {
    let bytes = case.streams()[which];
    let start = stored.len() - bytes.len();
    stored[start..].copy_from_slice(bytes);
    let (Want::Whole(limit) | Want::Front(limit)) = want;
    let out = place(case, which, out, limit);
    // Nothing of an earlier execution, which may have been of nearly the same stream.
    out.fill(case.filling());
    Job { stored: &stored[start..], out, want }
}

/// Where output goes: to the start of its memory or to its end, so that the sanitizer sees the byte before and the byte behind.
fn place<'a>(case: &Case, which: usize, memory: &'a mut [u8], limit: usize) -> &'a mut [u8] {
    let len = limit + case.room(which).min(ROOM);
    let start = if case.is_at_end() { memory.len() - len } else { 0 };
    &mut memory[start..start + len]
}

/// Counts executions, and says now and then how many of them were of streams with something in them.
#[derive(Default)]
pub struct Counts {
    all: u64,
    some: u64,
    whole: u64,
    pairs: u64,
}

impl Counts {
    fn count(&mut self, expected: &[Expected]) {
        self.all += 1;
        self.some += u64::from(expected.iter().any(|stream| stream.len > 0));
        self.whole += u64::from(expected.iter().any(|stream| stream.whole));
        self.pairs += u64::from(expected.len() == 2);
        if self.all.is_multiple_of(1 << 20) {
            eprintln!("{self}");
        }
    }
}

impl std::fmt::Display for Counts {
    fn fmt(&self, to: &mut std::fmt::Formatter) -> std::fmt::Result {
        let Self { all, some, whole, pairs } = self;
        write!(to, "{all} executions: {pairs} of pairs, {some} with bytes decoded, {whole} with a whole stream")
    }
}
