//! One zlib stream on its way into its output, and how far it may go without being checked.

use super::bits::Bits;

/// What is written ahead of the output by one token at most: the fast path writes wide, and what it wrote too much is
/// overwritten by what follows. Room that ends sooner is filled by the checked path.
pub(crate) const SLACK: usize = 128;

/// Input and output that one token is given: it takes 34 bits and reads 8 bytes, and it goes 32 bytes ahead. More than
/// that (a long match, the checked path) is charged as several tokens.
const TOKEN_INPUT: usize = 8;
const TOKEN_OUTPUT: usize = 32;

/// What is wanted of a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Want {
    /// All of it, this many bytes at most, and its checksum.
    Whole(usize),
    /// This many bytes from its start; what comes behind is not looked at.
    Front(usize),
}

/// Where a stream stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    /// Before the header of a block.
    Header,
    /// Among the symbols of a block whose tables are built.
    Block,
    /// Behind its last block.
    End,
    /// All that was wanted is there.
    Done,
    /// Damaged, cut, too long, or beyond what this decoder takes: another one decides what it is.
    Refused,
}

/// A stream and its output.
pub(super) struct Stream<'a> {
    pub(super) input: &'a [u8],
    /// Bits taken of the input.
    pub(super) bit: usize,
    /// The output and any room behind what is wanted.
    pub(super) out: &'a mut [u8],
    /// Bytes decoded.
    pub(super) at: usize,
    /// Bytes that are wanted, or at most.
    pub(super) limit: usize,
    /// Only the front is wanted.
    pub(super) front: bool,
    pub(super) state: State,
    /// The block is the stream's last.
    pub(super) last: bool,
    /// To be refused where libdeflate is faster.
    pub(super) choosy: bool,
}

impl<'a> Stream<'a> {
    /// Begins behind the two bytes of zlib's header (RFC 1950).
    pub(super) fn new(input: &'a [u8], out: &'a mut [u8], want: Want, choosy: bool) -> Self {
        let (limit, front) = match want {
            Want::Whole(limit) => (limit, false),
            Want::Front(limit) => (limit, true),
        };
        let header = input.first_chunk().map_or(0, |&two| u16::from_be_bytes(two));
        // Deflate, a window of 32 KiB at most, no preset dictionary, and the check bits.
        let is_zlib = header & 0x8F20 == 0x0800 && header % 31 == 0;
        let state = if is_zlib && limit <= out.len() { State::Header } else { State::Refused };
        Self { input, bit: 16, out, at: 0, limit, front, state, last: false, choosy: choosy && !front }
    }

    /// How many tokens may be decoded without asking whether input or output end.
    ///
    /// With n tokens left, the input has 8 (n + 1) bytes from the current one on, and the output 32 n bytes before the
    /// limit, and 32 n + [`SLACK`] before its end.
    #[inline(always)]
    pub(super) fn budget(&self) -> usize {
        let input = self.input.len().saturating_sub(self.bit / 8 + TOKEN_INPUT) / TOKEN_INPUT;
        let end = self.limit.min(self.out.len().saturating_sub(SLACK));
        input.min(end.saturating_sub(self.at) / TOKEN_OUTPUT)
    }

    /// All bytes of a wanted front are there.
    #[inline(always)]
    pub(super) fn has_front(&self) -> bool {
        self.front && self.at >= self.limit
    }

    /// The bits from the current one on.
    #[inline(always)]
    pub(super) fn bits(&self) -> Bits<'a> {
        Bits::new(self.input, self.bit)
    }

    /// The block ended at this bit.
    #[inline(always)]
    pub(super) fn end_block(&mut self, bit: usize) {
        self.bit = bit;
        self.state = if self.last { State::End } else { State::Header };
    }

    /// Decides about a stream whose last block has ended: the checksum follows it.
    pub(super) fn finish(&mut self) {
        let stored = self.input.get(self.bit.div_ceil(8)..).and_then(<[u8]>::first_chunk).copied();
        let is_whole = !self.front && self.at <= self.limit;
        let is_right = is_whole && stored.map(u32::from_be_bytes) == Some(adler32(&self.out[..self.at]));
        self.state = if is_right { State::Done } else { State::Refused };
    }
}

/// The checksum of a zlib stream.
#[cfg(not(miri))]
pub(crate) fn adler32(bytes: &[u8]) -> u32 {
    libdeflater::adler32(bytes)
}

/// As RFC 1950 has it: Miri cannot call libdeflate.
#[cfg(miri)]
pub(crate) fn adler32(bytes: &[u8]) -> u32 {
    let (one, two) = bytes.iter().fold((1, 0), |(one, two), &byte| {
        let one = (one + u32::from(byte)) % 65521;
        (one, (two + one) % 65521)
    });
    two << 16 | one
}
