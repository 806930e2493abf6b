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
use super::code::{Code, Lone};

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

/// A token as far as its literal and length say. From the lowest byte on:
/// - the bits of literal and length, the added ones included;
/// - the bytes of literal and match, or [`Token::LEAVE`] to leave the fast path;
/// - the tail (two bytes): the literal; above it [`Token::MATCH`], and what the style wants to know of the literal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Token(u32);

impl Token {
    /// The advance of what the fast path cannot do: as an unsigned number, more than any distance.
    pub(super) const LEAVE: i8 = -1;
    /// There is a match: selects the half of the distance table that takes bits.
    pub(super) const MATCH: u16 = 1 << 11;
    /// Pairs: there is a literal.
    pub(super) const LITERAL: u16 = 1 << 8;
    /// Runs: the high byte is where the literal is stored, from the output on; of a match, where it harms nothing.
    pub(super) const ASIDE: u16 = 0x40 << 8;

    const NOTHING: Self = Self::new(0, Self::LEAVE, 0);

    const fn new(bits: u32, advance: i8, tail: u16) -> Self {
        Self(bits | (advance as u8 as u32) << 8 | (tail as u32) << 16)
    }

    pub(super) const fn bits(self) -> u32 {
        self.0 & 0xFF
    }

    pub(super) const fn advance(self) -> i8 {
        (self.0 >> 8) as i8
    }

    pub(super) const fn tail(self) -> u16 {
        (self.0 >> 16) as u16
    }

    /// Of pairs: a literal of `bits` and this match behind it, or alone where they are more than the index has.
    #[inline(always)]
    const fn behind_literal(self, bits: u32) -> Self {
        let is_match = self.tail() & (Self::MATCH | Self::LITERAL) == Self::MATCH;
        let fits = self.bits() + bits <= PAIRS_BITS && (self.advance() as usize) < PAIRS_LONGEST;
        Self(Self::new(bits, 1, Self::LITERAL).0 + if is_match && fits { self.0 } else { 0 })
    }

    #[inline(always)]
    const fn with_literal(self, literal: u16) -> Self {
        Self(self.0 | (literal as u32) << 16)
    }
}

/// The distance of a match. From the lowest byte on:
/// - the bits of the codeword and those that are added;
/// - the bits of the codeword alone, with [`Distance::PERIOD`] for runs;
/// - the nearest distance of the symbol (two bytes); 0 to leave the fast path, for no match is shorter than that.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Distance(u32);

impl Distance {
    /// The match repeats a period of 12 bytes at most, whatever its length up to 64.
    pub(super) const PERIOD: u8 = 0x40;
    /// Where there is no match: bytes are copied from ahead of the output, and overwritten by the next token.
    pub(super) const NONE: Self = Self::new(0, 0, -64);

    const LEAVE: Self = Self::new(0, 0, 0);

    const fn new(bits: u32, codeword: u8, nearest: i16) -> Self {
        Self(bits | (codeword as u32) << 8 | (nearest as u16 as u32) << 16)
    }
}

/// The parts, for the twin in safe code.
#[cfg(any(test, fuzzing))]
impl Distance {
    pub(super) const fn bits(self) -> u32 {
        self.0 & 0xFF
    }

    pub(super) const fn codeword(self) -> u8 {
        (self.0 >> 8) as u8
    }

    pub(super) const fn nearest(self) -> i16 {
        (self.0 >> 16) as i16
    }
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
    pub(super) fn build(&mut self, literals: &[u8; 288], distances: &[u8; 32]) -> bool {
        // zlib refuses a block that cannot end.
        let can_end = literals[alphabet::END] != 0;
        if !can_end || !self.literals.assign(literals, Lone::One) || !self.far.assign(distances, Lone::OneOrNone) {
            return false;
        }
        self.pairs = has_pairs(literals);
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
        let mut entries = Entries::<Distance, 32>::none(Distance::LEAVE);
        for (bits, symbols, codewords) in self.far.by_length(DISTANCE_BITS) {
            for (&symbol, &codeword) in symbols.iter().zip(codewords) {
                let Some((nearest, extra)) = alphabet::distance(usize::from(symbol)) else { continue };
                // The largest distance of symbol 6 is 12.
                let period = if !PAIRS && symbol < 7 { Distance::PERIOD } else { 0 };
                entries.add(codeword, bits, Distance::new(bits + extra, bits as u8 | period, nearest as i16));
            }
        }
        entries.fill(&mut self.distances[HALF..], 6);
    }

    #[inline(always)]
    fn index_runs(&mut self) {
        let table = &mut self.tokens[..1 << RUNS_BITS];
        index_lengths(table, &self.literals, RUNS_BITS, RUNS_LONGEST, Token::MATCH | Token::ASIDE);
        for (bits, symbols, codewords) in self.literals.by_length(RUNS_BITS) {
            for (&symbol, &codeword) in symbols.iter().zip(codewords) {
                if symbol >= alphabet::END as u16 {
                    break;
                }
                every(table, codeword, bits, Token::new(bits, 1, symbol));
            }
        }
    }

    #[inline(always)]
    fn index_pairs(&mut self) {
        index_lengths(&mut self.tokens, &self.literals, PAIRS_BITS, PAIRS_LONGEST, Token::MATCH);
        for (bits, symbols, codewords) in self.literals.by_length(PAIRS_BITS) {
            // The steps between places are known to the compiler.
            let index = match bits {
                1 => index_literals::<1>,
                2 => index_literals::<2>,
                3 => index_literals::<3>,
                4 => index_literals::<4>,
                5 => index_literals::<5>,
                6 => index_literals::<6>,
                7 => index_literals::<7>,
                8 => index_literals::<8>,
                9 => index_literals::<9>,
                10 => index_literals::<10>,
                11 => index_literals::<11>,
                _ => index_literals::<PAIRS_BITS>,
            };
            index(&mut self.tokens, symbols, codewords);
        }
    }
}

/// Enters the literals of `BITS` bits, which come first, each with the length codeword behind it where both fit.
///
/// What may come behind is the same for all literals of a length: so far the table holds nothing but lengths and shorter
/// literals, and literals fill other places of it.
fn index_literals<const BITS: u32>(table: &mut [Token; 1 << PAIRS_BITS], symbols: &[u16], codewords: &[u16]) {
    /// Places that are filled at a time: all of a literal's, but for the shortest.
    const SOME: usize = 64;
    let behind = 1 << (PAIRS_BITS - BITS);
    for first in (0..behind).step_by(SOME) {
        let mut tokens = [Token::NOTHING; SOME];
        for (token, next) in tokens.iter_mut().zip(&table[first..behind]) {
            *token = next.behind_literal(BITS);
        }
        for (&symbol, &codeword) in symbols.iter().zip(codewords) {
            if symbol >= alphabet::END as u16 {
                break;
            }
            let low = usize::from(codeword) & ((1 << BITS) - 1);
            for (step, token) in tokens.iter().enumerate().take(behind) {
                table[low | (first + step) << BITS] = token.with_literal(symbol);
            }
        }
    }
}

/// Whether tables have pairs: enough literals, and few long matches, which often overlap themselves.
#[inline(always)]
fn has_pairs(literals: &[u8; 288]) -> bool {
    /// The symbol of 9 bytes: two neighbours of 4 bytes, and one more.
    const LONG: usize = 263;
    share(&literals[..alphabet::END]) >= WHOLE_SHARE / 4 && share(&literals[LONG..]) < WHOLE_SHARE / 16 * 3
}

/// How much of the room of a code these lengths take, which is about how often their symbols come; of [`WHOLE_SHARE`].
#[inline(always)]
pub(super) fn share(lengths: &[u8]) -> u32 {
    lengths.iter().map(|&length| (WHOLE_SHARE >> (length & 15)) * u32::from(length != 0)).sum()
}

pub(super) const WHOLE_SHARE: u32 = 1 << 15;

/// Fills a table with nothing but the length symbols, with each value of their added bits, as far as that fits the index.
#[inline(always)]
fn index_lengths<const N: usize>(table: &mut [Token], code: &Code<N>, index: u32, longest: usize, tail: u16) {
    let mut entries = Entries::<Token, { RUNS_LONGEST + 1 }>::none(Token::NOTHING);
    for (bits, symbols, codewords) in code.by_length(index) {
        for (&symbol, &codeword) in symbols.iter().zip(codewords).rev() {
            if symbol <= alphabet::END as u16 {
                break;
            }
            let Some((shortest, extra)) = alphabet::length(usize::from(symbol)) else { continue };
            if bits + extra > index {
                continue;
            }
            for (added, length) in (0..1 << extra).zip(shortest..=longest) {
                let token = Token::new(bits + extra, length as i8, tail);
                entries.add(codeword | added << bits, bits + extra, token);
            }
        }
    }
    entries.fill(table, 8);
}

/// What a table is filled with: each entry goes wherever the lowest bits of the index are as they should be.
struct Entries<T, const N: usize> {
    /// The lowest bits, how many they are, and what is to be found there.
    all: [(u16, u32, T); N],
    count: usize,
    nothing: T,
}

impl<T: Copy, const N: usize> Entries<T, N> {
    #[inline(always)]
    fn none(nothing: T) -> Self {
        Self { all: [(0, 0, nothing); N], count: 0, nothing }
    }

    #[inline(always)]
    fn add(&mut self, low: u16, bits: u32, entry: T) {
        self.all[self.count] = (low, bits, entry);
        self.count += 1;
    }

    /// Those with few bits go into the first 2^`short` places, and these are copied to the others; then the longer ones.
    #[inline(always)]
    fn fill(&self, table: &mut [T], short: u32) {
        let (first, entries) = (1 << short, &self.all[..self.count]);
        table[..first].fill(self.nothing);
        for &(low, bits, entry) in entries {
            if bits <= short {
                every(&mut table[..first], low, bits, entry);
            }
        }
        let mut ready = first;
        while ready < table.len() {
            table.copy_within(..ready, ready);
            ready *= 2;
        }
        for &(low, bits, entry) in entries {
            if bits > short {
                every(table, low, bits, entry);
            }
        }
    }
}

/// Enters `entry` wherever the lowest `bits` of the index are `low`.
#[inline(always)]
fn every<T: Copy>(table: &mut [T], low: u16, bits: u32, entry: T) {
    table[usize::from(low)..].iter_mut().step_by(1 << bits).for_each(|place| *place = entry);
}
