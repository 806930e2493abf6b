//! The look-up tables of a block: what a token's first bits say about all of it.
//!
//! A token is `[literal]? [match]?`, and the tables are made so that decoding one needs no question about which of the two
//! is there. A literal has an entry whose match is empty: it points to a half of the distance table in which every entry
//! takes no bits. Whatever does not fit (codewords longer than the table's index, long matches, the end of the block,
//! symbols without a meaning) has an entry that leaves the fast path, so the checked path meets it.
//!
//! Two styles of tables, because two kinds of data are compressed:
//! - **pairs** (column indices): most bytes that change are literals followed by a short match, so a literal and the length
//!   codeword behind it share an entry;
//! - **runs** (values): most symbols are matches, many of them overlapping themselves, so matches may be longer and repeat
//!   periods, and a literal stands alone.

use super::alphabet;
use super::code::{Code, Lone, next_reversed};

/// Bits that index the literals and lengths.
const PAIRS_BITS: u32 = 12;
const RUNS_BITS: u32 = 11;
/// Bits that index the distances.
pub(super) const DISTANCE_BITS: u32 = 9;
/// Most bytes of one token, which fit one wide store for pairs; longer ones of runs take more stores.
const PAIRS_LONGEST: usize = 32;
const RUNS_LONGEST: usize = 127;

/// Bits that index the literals and lengths of a style.
pub(super) const fn index_bits(pairs: bool) -> u32 {
    if pairs { PAIRS_BITS } else { RUNS_BITS }
}

/// A token as far as its literal and length say.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Token {
    /// Bits of literal and length, the added ones included.
    pub(super) bits: u8,
    /// Bytes of literal and match; [`Token::LEAVE`] to leave the fast path.
    pub(super) advance: i8,
    /// The literal in the low byte; above it [`Token::MATCH`], and what the style wants to know of the literal.
    pub(super) tail: u16,
}

impl Token {
    /// The advance of what the fast path cannot do: as an unsigned number, more than any distance.
    pub(super) const LEAVE: i8 = -1;
    /// There is a match: selects the half of the distance table that takes bits.
    pub(super) const MATCH: u16 = 1 << 11;
    /// Pairs: there is a literal.
    pub(super) const LITERAL: u16 = 1 << 8;
    /// Runs: the high byte is where the literal is stored, from the output on; of a match, where it harms nothing.
    pub(super) const ASIDE: u16 = 0x40 << 8;

    const NOTHING: Self = Self { bits: 0, advance: Self::LEAVE, tail: 0 };

    /// Whether it is a match without a literal, which the fast path can do.
    const fn is_match(self) -> bool {
        self.advance >= 0 && self.tail & Self::MATCH != 0
    }
}

/// The distance of a match.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Distance {
    /// Bits of the codeword and those that are added.
    pub(super) bits: u8,
    /// Bits of the codeword alone; with [`Distance::PERIOD`] for runs.
    pub(super) codeword: u8,
    /// The nearest distance of the symbol; 0 to leave the fast path, for no match is shorter than that.
    pub(super) nearest: i16,
}

impl Distance {
    /// The match repeats a period of 12 bytes at most, whatever its length up to 64.
    pub(super) const PERIOD: u8 = 0x40;
    /// Where there is no match: bytes are copied from ahead of the output, and overwritten by the next token.
    pub(super) const NONE: Self = Self { bits: 0, codeword: 0, nearest: -64 };

    const LEAVE: Self = Self { bits: 0, codeword: 0, nearest: 0 };
}

const HALF: usize = 1 << DISTANCE_BITS;

/// The tables of one block, fast and complete.
#[repr(C, align(64))]
pub(super) struct Tables {
    /// By the next [`index_bits`].
    pub(super) tokens: [Token; 1 << PAIRS_BITS],
    /// By the [`DISTANCE_BITS`] behind that: one half without a match, one with.
    pub(super) distances: [Distance; 2 * HALF],
    /// Every literal and length, for the checked path.
    pub(super) literals: Code<{ alphabet::LITERALS + 3 }>,
    /// Every distance, for the checked path.
    pub(super) far: Code<{ alphabet::DISTANCES + 3 }>,
    /// Which style they have.
    pub(super) pairs: bool,
}

impl Tables {
    pub(super) const EMPTY: Self = Self {
        tokens: [Token::NOTHING; 1 << PAIRS_BITS],
        distances: [Distance::NONE; 2 * HALF],
        literals: Code::EMPTY,
        far: Code::EMPTY,
        pairs: true,
    };

    /// Builds the tables of a block from the lengths of its codewords; false where zlib or libdeflate would refuse them.
    #[inline(always)]
    pub(super) fn build(&mut self, literals: &[u8], distances: &[u8]) -> bool {
        // zlib refuses a block that cannot end.
        let can_end = literals.get(alphabet::END).is_some_and(|&length| length != 0);
        if !can_end || !self.literals.assign(literals, Lone::One) || !self.far.assign(distances, Lone::OneOrNone) {
            return false;
        }
        self.pairs = share(&literals[..alphabet::END]) >= PAIRS_SHARE;
        if self.pairs {
            self.index_distances::<true>();
            self.index_pairs();
        } else {
            self.index_distances::<false>();
            self.index_runs();
        }
        true
    }

    #[inline(always)]
    fn index_distances<const PAIRS: bool>(&mut self) {
        let table = &mut self.distances[HALF..];
        table.fill(Distance::LEAVE);
        each_codeword(&self.far, DISTANCE_BITS, |symbol, codeword, bits| {
            let Some((nearest, extra)) = alphabet::distance(symbol) else { return };
            // The largest distance of symbol 6 is 12.
            let period = if !PAIRS && symbol < 7 { Distance::PERIOD } else { 0 };
            let entry = Distance { bits: (bits + extra) as u8, codeword: bits as u8 | period, nearest: nearest as i16 };
            every(table, codeword, bits, entry);
        });
    }

    #[inline(always)]
    fn index_runs(&mut self) {
        let table = &mut self.tokens[..1 << RUNS_BITS];
        table.fill(Token::NOTHING);
        each_codeword(&self.literals, RUNS_BITS, |symbol, codeword, bits| {
            if symbol < alphabet::END {
                every(table, codeword, bits, Token { bits: bits as u8, advance: 1, tail: symbol as u16 });
            } else {
                index_lengths(table, RUNS_BITS, RUNS_LONGEST, Token::MATCH | Token::ASIDE, symbol, codeword, bits);
            }
        });
    }

    #[inline(always)]
    fn index_pairs(&mut self) {
        let table = &mut self.tokens;
        table.fill(Token::NOTHING);
        each_codeword(&self.literals, PAIRS_BITS, |symbol, codeword, bits| {
            index_lengths(table, PAIRS_BITS, PAIRS_LONGEST, Token::MATCH, symbol, codeword, bits);
        });
        // Literals, each with the length codeword behind it where both fit. What may come behind is the same for all
        // literals of a length: so far the table holds nothing but lengths, and literals fill other places of it.
        let mut behind = [Token::NOTHING; 1 << (PAIRS_BITS - 1)];
        let mut known = 0;
        each_codeword(&self.literals, PAIRS_BITS, |symbol, codeword, bits| {
            if symbol >= alphabet::END {
                return;
            }
            let behind = &mut behind[..1 << (PAIRS_BITS - bits)];
            if known != bits {
                known = bits;
                for (token, &next) in behind.iter_mut().zip(table.iter()) {
                    let fits = u32::from(next.bits) <= PAIRS_BITS - bits
                        && next.is_match()
                        && next.tail & Token::LITERAL == 0
                        && (next.advance as usize) < PAIRS_LONGEST;
                    let next = if fits { next } else { Token { bits: 0, advance: 0, tail: 0 } };
                    *token = Token {
                        bits: bits as u8 + next.bits,
                        advance: next.advance + 1,
                        tail: next.tail | Token::LITERAL,
                    };
                }
            }
            let places = table[codeword as usize..].iter_mut().step_by(1 << bits);
            for (place, &token) in places.zip(behind.iter()) {
                *place = Token { tail: token.tail | symbol as u16, ..token };
            }
        });
    }
}

/// How much of the room of a code these lengths take, which is about how often their symbols come; of [`WHOLE_SHARE`].
#[inline(always)]
pub(super) fn share(lengths: &[u8]) -> u32 {
    lengths.iter().map(|&length| (WHOLE_SHARE >> (length & 15)) * u32::from(length != 0)).sum()
}

pub(super) const WHOLE_SHARE: u32 = 1 << 15;

/// From this share of literals on, tables have pairs: column indices have 0.33 to 0.5, counts 0.02 to 0.15.
const PAIRS_SHARE: u32 = WHOLE_SHARE / 4;

/// Enters a length symbol with each value of its added bits, as far as that fits the index.
#[inline(always)]
fn index_lengths(table: &mut [Token], index: u32, longest: usize, tail: u16, symbol: usize, codeword: u32, bits: u32) {
    let Some((shortest, extra)) = alphabet::length(symbol) else { return };
    if bits + extra > index {
        return;
    }
    for added in 0..1 << extra {
        let length = shortest + added as usize;
        if length > longest {
            return;
        }
        let token = Token { bits: (bits + extra) as u8, advance: length as i8, tail };
        every(table, codeword | added << bits, bits + extra, token);
    }
}

/// Enters `entry` wherever the lowest `bits` of the index are `low`.
#[inline(always)]
fn every<T: Copy>(table: &mut [T], low: u32, bits: u32, entry: T) {
    table[low as usize..].iter_mut().step_by(1 << bits).for_each(|place| *place = entry);
}

/// Calls `enter` with each symbol that has a codeword of `most` bits at most, the codeword (first bit lowest) and its length.
#[inline(always)]
fn each_codeword<const N: usize>(code: &Code<N>, most: u32, mut enter: impl FnMut(usize, u32, u32)) {
    let (mut place, mut codeword) = (0, 0);
    for bits in 1..=most {
        for _ in 0..code.count[bits as usize] {
            enter(usize::from(code.symbols[place]), codeword, bits);
            place += 1;
            codeword = next_reversed(codeword, bits);
        }
    }
}
