//! The header of a block (RFC 1951, 3.2.3): stored bytes are copied, the codes of the others become tables.

use super::alphabet;
use super::bits::Bits;
use super::code::{Code, Lone};
use super::stream::{State, Stream};
use super::tables::{Tables, WHOLE_SHARE, share};

/// The order in which the lengths of the code of code lengths come.
const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

/// The fixed code.
const FIXED_LITERALS: [u8; 288] = {
    let mut lengths = [8; 288];
    let mut symbol = 144;
    while symbol < 280 {
        lengths[symbol] = if symbol < 256 { 9 } else { 7 };
        symbol += 1;
    }
    lengths
};
const FIXED_DISTANCES: [u8; 32] = [5; 32];

/// Reads the header of a block; the state becomes `Block`, or behind it for a stored one, or `Refused`.
#[inline(always)]
pub(super) fn read(stream: &mut Stream, tables: &mut Tables) {
    let mut bits = stream.bits();
    stream.last = bits.take(1) == 1;
    match bits.take(2) {
        0 => copy_stored(stream, bits.at),
        1 => {
            let is_built = tables.build(&FIXED_LITERALS, &FIXED_DISTANCES) && !bits.is_past_end();
            stream.bit = bits.at;
            stream.state = if is_built { State::Block } else { State::Refused };
        }
        2 => {
            let choosy = stream.choosy && stream.at == 0;
            let is_built = read_codes(&mut bits, tables, choosy).is_some() && !bits.is_past_end();
            stream.bit = bits.at;
            stream.state = if is_built { State::Block } else { State::Refused };
        }
        _ => stream.state = State::Refused,
    }
}

/// A stored block: its length, the length's complement, its bytes.
fn copy_stored(stream: &mut Stream, bit: usize) {
    let from = bit.div_ceil(8) + 4;
    let Some(&[low, high, not_low, not_high]) = stream.input.get(from - 4..from) else {
        stream.state = State::Refused;
        return;
    };
    let len = usize::from(u16::from_le_bytes([low, high]));
    let is_whole = [!low, !high] == [not_low, not_high];
    let room = stream.limit.saturating_sub(stream.at);
    // Of a wanted front, only what is wanted.
    let wanted = if stream.front { len.min(room) } else { len };
    match stream.input.get(from..from + wanted) {
        Some(bytes) if is_whole && wanted <= room => {
            stream.out[stream.at..stream.at + wanted].copy_from_slice(bytes);
            stream.at += wanted;
            stream.end_block(8 * (from + wanted));
        }
        _ => stream.state = State::Refused,
    }
}

/// Whether the first block of a stream is one that libdeflate decodes faster.
pub(super) fn is_slower(stream: &Stream) -> bool {
    let mut bits = stream.bits();
    bits.take(1);
    bits.take(2) == 2 && read_lengths(&mut bits).is_some_and(|(literals, _)| is_slower_here(&literals))
}

/// Builds the tables of a dynamic block; None where it is to be refused.
#[inline(always)]
fn read_codes(bits: &mut Bits, tables: &mut Tables, choosy: bool) -> Option<()> {
    let (literals, distances) = read_lengths(bits)?;
    if choosy && is_slower_here(&literals) {
        return None;
    }
    tables.build(&literals, &distances).then_some(())
}

/// The lengths of the codewords of a dynamic block: of literals and lengths, and of distances.
#[inline(always)]
fn read_lengths(bits: &mut Bits) -> Option<([u8; 288], [u8; 32])> {
    let literals = bits.take(5) + 257;
    let distances = bits.take(5) + 1;
    let stored = bits.take(4) + 4;
    if literals > alphabet::LITERALS || distances > alphabet::DISTANCES {
        return None;
    }
    let mut lengths = [0; 20];
    for &symbol in &ORDER[..stored] {
        bits.need(3);
        lengths[symbol] = bits.take(3) as u8;
    }
    let by_bits = index_lengths(&lengths)?;

    let total = literals + distances;
    let mut lengths = [0_u8; alphabet::LITERALS + alphabet::DISTANCES];
    let mut at = 0;
    while at < total {
        bits.need(7 + 7);
        let (symbol, length) = by_bits[(bits.next & 127) as usize];
        if length == 0 {
            return None;
        }
        bits.take(u32::from(length));
        let (value, times) = match symbol {
            0..16 => {
                lengths[at] = symbol;
                at += 1;
                continue;
            }
            16 => (*lengths[..at].last()?, 3 + bits.take(2)),
            17 => (0, 3 + bits.take(3)),
            _ => (0, 11 + bits.take(7)),
        };
        lengths[..total].get_mut(at..at + times)?.fill(value);
        at += times;
    }
    let (mut for_literals, mut for_distances) = ([0; 288], [0; 32]);
    for_literals[..literals].copy_from_slice(&lengths[..literals]);
    for_distances[..distances].copy_from_slice(&lengths[literals..total]);
    Some((for_literals, for_distances))
}

/// Whether libdeflate is faster: it takes several literals at a time, and is better at copying long matches.
///
/// So it is where more than 5/8 of the symbols are literals (no file's indices, but those of zlib-rs at level 4), or more than
/// half are matches of 15 bytes or more (counts of 8 bytes, dense matrices).
#[inline(always)]
fn is_slower_here(literals: &[u8; 288]) -> bool {
    /// The symbol of 15 and 16 bytes.
    const LONG: usize = 267;
    share(&literals[LONG..]) > WHOLE_SHARE / 2 || share(&literals[..alphabet::END]) > WHOLE_SHARE / 8 * 5
}

/// Symbol and length of the code of code lengths by the next 7 bits.
#[inline(always)]
fn index_lengths(lengths: &[u8; 20]) -> Option<[(u8, u8); 128]> {
    let mut code = Code::<21>::EMPTY;
    if !code.assign(lengths, Lone::Refused) {
        return None;
    }
    let mut table = [(0, 0); 128];
    for (length, symbols, codewords) in code.by_length(7) {
        for (&symbol, &codeword) in symbols.iter().zip(codewords) {
            let places = table[usize::from(codeword)..].iter_mut().step_by(1 << length);
            places.for_each(|place| *place = (symbol as u8, length as u8));
        }
    }
    Some(table)
}
