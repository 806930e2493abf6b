//! Bits of a byte slice, lowest first, as deflate packs them; never a byte from outside of the slice.

/// A reader of up to 57 bits at a time.
///
/// Behind the end of the input come zeros, so that a symbol may be looked up before it is known whether all of its bits
/// are there: ask [`is_past_end`](Self::is_past_end) before believing what was read.
pub(super) struct Bits<'a> {
    input: &'a [u8],
    /// Bits taken since the start of the input.
    pub(super) at: usize,
    /// The next bits.
    pub(super) next: u64,
    /// How many of them are real, or zeros behind the end.
    left: u32,
}

impl<'a> Bits<'a> {
    /// Begins at a bit of `input`, with at least 57 bits to take.
    #[inline(always)]
    pub(super) fn new(input: &'a [u8], at: usize) -> Self {
        let mut bits = Self { input, at, next: 0, left: 0 };
        bits.refill();
        bits
    }

    /// Makes 57 bits or more ready to take.
    #[inline(always)]
    pub(super) fn refill(&mut self) {
        let rest = self.input.get(self.at / 8..).unwrap_or_default();
        let word = match rest.first_chunk() {
            Some(&eight) => u64::from_le_bytes(eight),
            None => rest.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte)),
        };
        self.next = word >> (self.at % 8);
        self.left = 64 - (self.at % 8) as u32;
    }

    /// Makes sure of `count` bits, 57 at most.
    #[inline(always)]
    pub(super) fn need(&mut self, count: u32) {
        if self.left < count {
            self.refill();
        }
    }

    /// Takes `count` bits, which must be ready.
    #[inline(always)]
    pub(super) fn take(&mut self, count: u32) -> usize {
        debug_assert!(count <= self.left);
        let value = self.next & ((1 << count) - 1);
        self.next >>= count;
        self.left -= count;
        self.at += count as usize;
        value as usize
    }

    /// Whether more bits were taken than the input has.
    #[inline(always)]
    pub(super) fn is_past_end(&self) -> bool {
        self.at > 8 * self.input.len()
    }
}
