//! Tokens without branches that depend on the data, for x86-64 with AVX2 and BMI2: one stream, or two in turns.
//!
//! All of this crate's decoding that is not checked by the compiler is in this file. What the code relies on:
//!
//! 1. **Budget.** [`Stream::budget`] gives a number n of rounds. In each round a stream takes one token, which reads 8 bytes
//!    of input from the current one on, takes 34 bits at most, reads and writes output no further than [`SLACK`] bytes ahead
//!    and goes 32 bytes ahead at most. So n rounds stay inside input and output. What does more (a long match, the checked
//!    path) is charged as more rounds: a match of 127 bytes, written to 158 bytes ahead, as five (160 bytes); two checked
//!    symbols (259 bytes, 63 bits) as ten.
//! 2. **Tables** are built from complete codes (or a lone codeword); every index is masked to the size of its table, and each entry
//!    is made by `tables.rs`: a token has 12 bits and 32 bytes at most (runs: 11 bits and 127 bytes), a distance 22 bits.
//! 3. **Sources.** Before anything is copied, the source of a match is compared with the start of the output. No match is
//!    copied from less than its length away, except for periods of 12 bytes at most, which are repeated in a register.
//! 4. **Initialised memory.** Output is a slice, so what is read of it too early is rubbish but defined, and overwritten.
//!
//! The checked path works on the [`Stream`] itself: positions are put back into it before, and pointers made anew after.

use std::arch::x86_64::{
    __m256i, _bzhi_u64, _mm256_load_si256, _mm256_loadu_si256, _mm256_loadu2_m128i, _mm256_shuffle_epi8,
    _mm256_storeu_si256,
};

use super::checked;
use super::stream::{SLACK, State, Stream};
use super::tables::{DISTANCE_BITS, Distance, Tables, Token, index_bits};

/// Proof that this processor has what the fast path needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fast(());

#[allow(clippy::unused_self, reason = "it is the proof")]
impl Fast {
    pub(super) fn detect() -> Option<Self> {
        let has_all = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("bmi2")
            && is_x86_feature_detected!("lzcnt")
            && is_x86_feature_detected!("popcnt");
        has_all.then_some(Self(()))
    }

    /// [`super::attend`], compiled for this processor.
    pub(super) fn attend(self, stream: &mut Stream, tables: &mut Tables) -> bool {
        // SAFETY: `self` proves that the processor has the features.
        unsafe { attend(stream, tables) }
    }

    /// Decodes one stream until the budget is used up or its block ends.
    pub(super) fn alone(self, tables: &Tables, stream: &mut Stream) {
        // SAFETY: `self` proves that the processor has the features.
        unsafe { if tables.pairs { alone::<true>(tables, stream) } else { alone::<false>(tables, stream) } }
    }

    /// Decodes two streams in turns until the smaller budget is used up or a block ends.
    pub(super) fn pair(self, tables: &[Tables; 2], one: &mut Stream, two: &mut Stream) {
        // SAFETY: `self` proves that the processor has the features.
        unsafe {
            match (tables[0].pairs, tables[1].pairs) {
                (true, true) => pair::<true, true>(tables, one, two),
                (true, false) => pair::<true, false>(tables, one, two),
                (false, true) => pair::<false, true>(tables, one, two),
                (false, false) => pair::<false, false>(tables, one, two),
            }
        }
    }
}

#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
fn attend(stream: &mut Stream, tables: &mut Tables) -> bool {
    super::attend(stream, tables)
}

/// For each period up to 15, its repetition in 16 bytes and, in step, in the next 16; at 16, bytes as they are.
#[repr(align(32))]
struct Periods([[u8; 32]; 17]);

static PERIODS: Periods = {
    let mut patterns = [[0; 32]; 17];
    let mut period = 1;
    while period < 17 {
        let mut at = 0;
        while at < 32 {
            patterns[period][at] = (at % period) as u8;
            at += 1;
        }
        period += 1;
    }
    Periods(patterns)
};

/// The place of a stream, in registers.
#[derive(Clone, Copy)]
struct Cursor {
    /// Address of the input, in bits.
    bit: u64,
    /// Where output goes.
    out: *mut u8,
    /// Where output began.
    start: *const u8,
    /// The next bits, enough to find a token: left over from the last one, so that they are there before the next load is.
    next: u64,
}

/// What became of a token.
#[derive(PartialEq, Eq)]
enum Took {
    One,
    /// A long match, to be charged as [`LONG`] rounds more.
    Long,
    /// It leaves the fast path; nothing is done.
    Nothing,
}

/// Rounds more for a long match: (4 + 1) * 32 bytes are as far as it is written.
const LONG: isize = 4;

impl Cursor {
    fn new(stream: &mut Stream) -> Self {
        let start = stream.out.as_mut_ptr();
        Self {
            bit: 8 * stream.input.as_ptr().expose_provenance() as u64 + stream.bit as u64,
            out: start.wrapping_add(stream.at),
            start,
            next: 0,
        }
    }

    fn put_back(&self, stream: &mut Stream) {
        stream.bit = (self.bit - 8 * stream.input.as_ptr().addr() as u64) as usize;
        stream.at = self.out.addr() - self.start.addr();
    }

    /// The next 57 bits or more.
    ///
    /// # Safety
    /// Eight bytes of input are left.
    #[inline(always)]
    unsafe fn load(&self) -> u64 {
        let from = std::ptr::with_exposed_provenance::<u64>((self.bit >> 3) as usize);
        // SAFETY: the caller says that the eight bytes are the input's.
        let word = unsafe { from.read_unaligned() };
        word >> (self.bit & 7)
    }
}

/// One token.
///
/// # Safety
/// A round of the budget is left (see the top of this file), `cursor.next` holds the stream's next 12 bits at least, and
/// the tables have the style `PAIRS`.
#[inline]
#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
unsafe fn token<const PAIRS: bool>(cursor: &mut Cursor, tables: *const Tables) -> Took {
    const HALF: usize = 1 << DISTANCE_BITS;
    // SAFETY: the tables live; the index is masked to the table's size.
    let entry = unsafe {
        let tokens = (&raw const (*tables).tokens).cast::<Token>();
        tokens.add((cursor.next & ((1 << index_bits(PAIRS)) - 1)) as usize)
    };
    // SAFETY: the budget has 8 bytes of input for this round.
    let bits = unsafe { cursor.load() };
    // SAFETY: the lowest byte of an entry of the table.
    let used = u64::from(unsafe { entry.cast::<u8>().read() });
    let bits = bits >> (used & 63);
    // SAFETY: the upper half of the same entry.
    let tail = usize::from(unsafe { entry.cast::<u16>().add(1).read() });
    // SAFETY: the half is 0 or 512, the index in it below 512, the table has 1024 entries.
    let far = unsafe {
        let distances = (&raw const (*tables).distances).cast::<Distance>();
        let half = distances.byte_add(tail & usize::from(Token::MATCH));
        half.add((bits & (HALF as u64 - 1)) as usize)
    };
    // SAFETY: the two lower bytes and the upper half of an entry of the table.
    let (far_bits, codeword, nearest) =
        unsafe { (far.cast::<u8>().read(), far.cast::<u8>().add(1).read(), far.cast::<i16>().add(1).read()) };
    let added = _bzhi_u64(bits, u32::from(far_bits)) >> (codeword & 63);
    // Without a match, -64: the source is ahead of the output, within the slack.
    let distance = (nearest as i64 as u64).wrapping_add(added);
    // To leave, -1: more than any distance.
    // SAFETY: the second byte of the same entry.
    let advance = unsafe { entry.cast::<i8>().add(1).read() } as i64 as u64;
    let mut took = Took::One;
    if PAIRS {
        let to = cursor.out.wrapping_add(tail >> 8 & 1);
        let source = to.wrapping_sub(distance as usize).cast_const();
        if distance < advance || source < cursor.start {
            return Took::Nothing;
        }
        // SAFETY: the source is not before the output's start, nor more than 65 bytes ahead; the output has room for 128.
        // Sources of matches are a token's length away, so what is copied of them is written before.
        unsafe {
            let copied = _mm256_loadu_si256(source.cast());
            *cursor.out = tail as u8;
            _mm256_storeu_si256(to.cast(), copied);
        }
    } else {
        let source = cursor.out.wrapping_sub(distance as usize).cast_const();
        let period = (distance as usize).min(16);
        if distance | u64::from(codeword & Distance::PERIOD) < advance || source < cursor.start {
            return Took::Nothing;
        }
        // SAFETY: the source is not before the output's start, nor more than 64 bytes ahead; the output has room for 128.
        // Patterns are aligned. The literal (or, of a match, a byte that is overwritten) is stored 0 or 72
        // bytes ahead.
        unsafe {
            let pattern = _mm256_load_si256((&raw const PERIODS.0[period]).cast());
            let copied = _mm256_loadu2_m128i(source.add(period & 16).cast(), source.cast());
            let copied = _mm256_shuffle_epi8(copied, pattern);
            _mm256_storeu_si256(cursor.out.cast(), copied);
            if advance > 32 {
                copy_long(cursor.out, distance as usize, advance as usize, copied);
                took = Took::Long;
            } else {
                *cursor.out.add(tail >> 8) = tail as u8;
            }
        }
    }
    cursor.bit += used + u64::from(far_bits);
    cursor.next = bits >> (far_bits & 63);
    cursor.out = cursor.out.wrapping_add(advance as usize);
    took
}

/// The rest of a match of 33 to 127 bytes, whose first 32 are in `first`.
///
/// # Safety
/// The output has room for 160 bytes, the source is in it, and it is 1 to 12 or at least `length` bytes away.
#[cold]
#[inline(never)]
#[target_feature(enable = "avx2")]
unsafe fn copy_long(out: *mut u8, distance: usize, length: usize, first: __m256i) {
    // A period is repeated from its last whole repetition on.
    let step = if distance < 16 { 32 / distance * distance } else { 32 };
    let mut at = step;
    while at < length {
        // SAFETY: `at` is less than 127, so it ends within 160 bytes; the source is the same number of bytes on.
        unsafe {
            let copied =
                if distance < 16 { first } else { _mm256_loadu_si256(out.sub(distance).add(at).cast_const().cast()) };
            _mm256_storeu_si256(out.add(at).cast(), copied);
        }
        at += step;
    }
}

/// What the checked path takes over; returns where it got to and the rounds left.
///
/// The cursor comes and goes by value: one whose address is known to somebody is kept in memory, not in registers, by the
/// whole loop, which costs a quarter of the speed.
///
/// # Safety
/// As for [`token`], but without `cursor.next`.
#[cold]
#[inline(never)]
#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
unsafe fn leave(cursor: Cursor, stream: &mut Stream, tables: &Tables, left: isize) -> (Cursor, isize) {
    cursor.put_back(stream);
    checked::symbols(stream, tables, 2);
    let mut cursor = Cursor::new(stream);
    let left = left - checked::CHARGE as isize;
    if left <= 1 || stream.state != State::Block {
        return (cursor, 0);
    }
    // SAFETY: another round is left, so eight bytes are.
    cursor.next = unsafe { cursor.load() };
    (cursor, left)
}

/// One round of one stream.
macro_rules! round {
    ($style:ident, $cursor:ident, $stream:ident, $tables:expr, $left:ident) => {
        match token::<$style>(&mut $cursor, $tables) {
            Took::One => {}
            Took::Long => $left -= LONG,
            Took::Nothing => ($cursor, $left) = leave($cursor, $stream, &*$tables, $left),
        }
    };
}

/// See [`Fast::alone`].
#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
pub(super) fn alone<const A: bool>(tables: &Tables, stream: &mut Stream) {
    assert!(tables.pairs == A);
    let tables: *const Tables = tables;
    while stream.state == State::Block {
        let mut left = stream.budget() as isize;
        if left == 0 {
            return;
        }
        let mut cursor = Cursor::new(stream);
        // SAFETY: `left` is the budget, so eight bytes are left now and in each round; the style was asked for above.
        unsafe {
            cursor.next = cursor.load();
            while left > 0 {
                round!(A, cursor, stream, tables, left);
                left -= 1;
            }
        }
        cursor.put_back(stream);
    }
}

/// See [`Fast::pair`].
#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
pub(super) fn pair<const A: bool, const B: bool>(tables: &[Tables; 2], one: &mut Stream, two: &mut Stream) {
    assert!(tables[0].pairs == A && tables[1].pairs == B);
    let tables: *const Tables = tables.as_ptr();
    while one.state == State::Block && two.state == State::Block {
        let mut left = one.budget().min(two.budget()) as isize;
        if left == 0 {
            return;
        }
        let (mut first, mut second) = (Cursor::new(one), Cursor::new(two));
        // SAFETY: as in `alone`, for the smaller of two budgets. The streams share nothing: each holds its output alone.
        // Where one of them leaves and its state changes, no rounds are left, but the other may end this one.
        unsafe {
            first.next = first.load();
            second.next = second.load();
            while left > 0 {
                round!(A, first, one, tables, left);
                round!(B, second, two, tables.add(1), left);
                left -= 1;
            }
        }
        first.put_back(one);
        second.put_back(two);
    }
}

// The flag for a match is the size of the half without one, in bytes.
const _: () = assert!(Token::MATCH as usize == size_of::<[Distance; 1 << DISTANCE_BITS]>());
const _: () = assert!(SLACK >= 32 + 1 + 64 && SLACK > 0x48 && SLACK + 32 >= 127 + 31);
