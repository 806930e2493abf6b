//! Canonical Huffman codes (RFC 1951, 3.2.2): from the lengths of the codewords to the symbols.

/// The longest codeword.
const LONGEST: usize = 15;

/// Which codes are taken besides complete ones.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Lone {
    /// None: the code of the code lengths.
    Refused,
    /// One codeword of one bit: literals and lengths of an empty block.
    One,
    /// One codeword of one bit, or none: distances.
    OneOrNone,
}

/// A code of up to `N - 1` symbols, for finding a symbol by its codeword.
#[repr(align(32))]
pub(super) struct Code<const N: usize> {
    /// For each length, the last codeword of that length or a shorter one, padded with ones to 15 bits; -1 where there is none.
    last: [i16; LONGEST + 1],
    /// For each length, what to add to a codeword of that length to have the place of its symbol.
    shift: [i16; LONGEST + 1],
    /// How many codewords have each length.
    pub(super) count: [u16; LONGEST + 1],
    /// Symbols in the order of their codewords; the last place takes those without one.
    pub(super) symbols: [u16; N],
}

impl<const N: usize> Code<N> {
    pub(super) const EMPTY: Self =
        Self { last: [-1; LONGEST + 1], shift: [0; LONGEST + 1], count: [0; LONGEST + 1], symbols: [0; N] };

    /// Takes the code of these lengths (0 to 15, fewer than `N`); false where zlib or libdeflate would refuse it.
    #[inline(always)]
    pub(super) fn assign(&mut self, lengths: &[u8], lone: Lone) -> bool {
        debug_assert!(lengths.len() < N);
        // Two histograms: neighbours often have the same length, and would wait for each other's sum.
        let (mut even, mut odd) = ([0_u16; 16], [0_u16; 16]);
        for pair in lengths.chunks(2) {
            even[usize::from(pair[0] & 15)] += 1;
            if let Some(&second) = pair.get(1) {
                odd[usize::from(second & 15)] += 1;
            }
        }
        for (count, (even, odd)) in self.count.iter_mut().zip(even.iter().zip(odd)) {
            *count = even + odd;
        }
        let used = lengths.len() - usize::from(self.count[0]);
        self.count[0] = 0;
        let free = self.count[1..].iter().fold(1_i32, |free, &count| 2 * free - i32::from(count));
        // A sum that is negative once stays so: it is doubled, and counts are taken off.
        let is_lone = match lone {
            Lone::Refused => false,
            Lone::One => used == 1 && self.count[1] == 1,
            Lone::OneOrNone => used == 0 || (used == 1 && self.count[1] == 1),
        };
        if free != 0 && !is_lone {
            return false;
        }
        let mut places = [0_u16; 16];
        let (mut codeword, mut place) = (0_i32, 0_i32);
        self.last[0] = -1;
        for (length, first) in places.iter_mut().enumerate().skip(1) {
            *first = place as u16;
            self.shift[length] = (place - codeword) as i16;
            codeword += i32::from(self.count[length]);
            place += i32::from(self.count[length]);
            self.last[length] = ((codeword << (LONGEST - length)) - 1) as i16;
            codeword <<= 1;
        }
        // Symbols without a codeword all go to the last place: cheaper than asking for each.
        places[0] = N as u16 - 1;
        for (symbol, &length) in lengths.iter().enumerate() {
            let place = &mut places[usize::from(length & 15)];
            self.symbols[usize::from(*place).min(N - 1)] = symbol as u16;
            *place += u16::from(length != 0);
        }
        true
    }

    /// The symbol whose codeword comes next in `bits`, and the codeword's length.
    #[inline(always)]
    pub(super) fn find(&self, bits: u64) -> Option<(usize, u32)> {
        let ahead = ((bits as u16).reverse_bits() >> 1) as i16;
        // The first length whose codewords reach as far as these bits: as many are shorter, for `last` rises.
        let length = self.last.iter().map(|&last| u16::from(last < ahead)).sum::<u16>();
        if usize::from(length) > LONGEST {
            return None;
        }
        let place = (ahead >> (LONGEST as u16 - length)) + self.shift[usize::from(length)];
        Some((usize::from(*self.symbols.get(place as usize)?), u32::from(length)))
    }
}

/// The codeword after `reversed` among those of `length` bits, both with their first bit lowest.
#[inline(always)]
pub(super) fn next_reversed(reversed: u32, length: u32) -> u32 {
    let zeros = reversed ^ ((1 << length) - 1);
    if zeros == 0 {
        return 0;
    }
    let highest = 1 << zeros.ilog2();
    (reversed & (highest - 1)) | highest
}
