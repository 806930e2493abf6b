//! What deflate's symbols mean (RFC 1951, 3.2.5 and 3.2.6).

/// The end of a block among literals and lengths.
pub(super) const END: usize = 256;
/// Most symbols of literals and lengths that have a meaning; the fixed code has two more.
pub(super) const LITERALS: usize = 286;
/// Most symbols of distances that have a meaning; the fixed code has two more.
pub(super) const DISTANCES: usize = 30;

/// The shortest match of each length symbol, from 257 on.
const LENGTH: [u16; 29] =
    [3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258];
/// Bits that are added to it.
const LENGTH_EXTRA: [u8; 29] = [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0];
/// The nearest distance of each symbol.
const DISTANCE: [u16; DISTANCES] = [
    1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097, 6145,
    8193, 12289, 16385, 24577,
];
/// Bits that are added to it.
const DISTANCE_EXTRA: [u8; DISTANCES] =
    [0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13];

/// The shortest match of a length symbol and the bits that are added to it.
#[inline(always)]
pub(super) fn length(symbol: usize) -> Option<(usize, u32)> {
    let place = symbol.checked_sub(END + 1)?;
    Some((usize::from(*LENGTH.get(place)?), u32::from(*LENGTH_EXTRA.get(place)?)))
}

/// The nearest distance of a distance symbol and the bits that are added to it.
#[inline(always)]
pub(super) fn distance(symbol: usize) -> Option<(usize, u32)> {
    Some((usize::from(*DISTANCE.get(symbol)?), u32::from(*DISTANCE_EXTRA.get(symbol)?)))
}
