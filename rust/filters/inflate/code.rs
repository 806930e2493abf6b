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

/// A code of fewer than `N` symbols, for finding a symbol by its codeword.
#[repr(align(32))]
pub(super) struct Code<const N: usize> {
    /// For each length, the last codeword of that length or a shorter one, padded with ones to 15 bits; -1 where there is none.
    last: [i16; LONGEST + 1],
    /// For each length, what to add to a codeword of that length to have the place of its symbol.
    shift: [i16; LONGEST + 1],
    /// How many codewords have each length.
    count: [u16; LONGEST + 1],
    /// Symbols in the order of their codewords; the last place takes those without one.
    symbols: [u16; N],
    /// Their codewords, first bit lowest.
    codewords: [u16; N],
}

/// Parts of the symbols that are sorted side by side.
const PARTS: usize = 4;

impl<const N: usize> Code<N> {
    pub(super) const EMPTY: Self = Self {
        last: [-1; LONGEST + 1],
        shift: [0; LONGEST + 1],
        count: [0; LONGEST + 1],
        symbols: [0; N],
        codewords: [0; N],
    };

    /// Takes the code of these lengths (0 to 15; `P` is a multiple of 4); false where zlib or libdeflate would refuse it.
    #[inline(always)]
    pub(super) fn assign<const P: usize>(&mut self, lengths: &[u8; P], lone: Lone) -> bool {
        const { assert!(P < N && P.is_multiple_of(PARTS)) };
        // Neighbours often have the same length, and would wait for each other's sum and place: four parts in step.
        let mut counts = [[0_u16; 16]; PARTS];
        for at in 0..P / PARTS {
            for (part, count) in counts.iter_mut().enumerate() {
                count[usize::from(lengths[part * (P / PARTS) + at] & 15)] += 1;
            }
        }
        for (length, count) in self.count.iter_mut().enumerate() {
            *count = counts.iter().map(|counts| counts[length]).sum();
        }
        let used = P - usize::from(self.count[0]);
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
        let mut places = [[0_u16; 16]; PARTS];
        let (mut codeword, mut place) = (0_i32, 0_i32);
        self.last[0] = -1;
        for length in 1..=LONGEST {
            let mut first = place as u16;
            for (places, counts) in places.iter_mut().zip(&counts) {
                places[length] = first;
                first += counts[length];
            }
            self.shift[length] = (place - codeword) as i16;
            let count = usize::from(self.count[length]);
            for (step, to) in self.codewords[place as usize..][..count].iter_mut().enumerate() {
                // Padded with zeros to 16 bits: turned around below, they vanish.
                *to = ((codeword + step as i32) << (16 - length)) as u16;
            }
            codeword += count as i32;
            place += count as i32;
            self.last[length] = ((codeword << (LONGEST - length)) - 1) as i16;
            codeword <<= 1;
        }
        self.codewords.iter_mut().for_each(|codeword| *codeword = codeword.reverse_bits());
        // Symbols without a codeword all go to the last place: cheaper than asking for each.
        for places in &mut places {
            places[0] = N as u16 - 1;
        }
        for at in 0..P / PARTS {
            for (part, places) in places.iter_mut().enumerate() {
                let symbol = part * (P / PARTS) + at;
                let length = lengths[symbol];
                let place = &mut places[usize::from(length & 15)];
                self.symbols[usize::from(*place).min(N - 1)] = symbol as u16;
                *place += u16::from(length != 0);
            }
        }
        true
    }

    /// For each length up to `most`, the symbols with a codeword of that length, lowest first, and their codewords.
    #[inline(always)]
    pub(super) fn by_length(&self, most: u32) -> impl Iterator<Item = (u32, &[u16], &[u16])> + Clone {
        let mut first = 0;
        (1..=most).map(move |length| {
            let places = first..first + usize::from(self.count[length as usize]);
            first = places.end;
            (length, &self.symbols[places.clone()], &self.codewords[places])
        })
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
