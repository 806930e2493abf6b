//! One symbol with every check: what the fast path leaves, and the last bytes of input and output.

use super::alphabet;
use super::stream::{State, Stream};
use super::tables::Tables;

/// Tokens that [`symbols`] is charged as, for two symbols: a literal and a match of 258 bytes, 63 bits in all.
pub(super) const CHARGE: usize = 9;

/// Decodes up to `most` symbols, to the first match; the state tells whether the block ended or the stream is refused.
#[inline(always)]
pub(super) fn symbols(stream: &mut Stream, tables: &Tables, most: usize) {
    for _ in 0..most {
        if stream.has_front() {
            return;
        }
        let mut bits = stream.bits();
        let Some((symbol, length)) = tables.literals.find(bits.next) else {
            stream.state = State::Refused;
            return;
        };
        bits.take(length);
        if symbol > alphabet::END {
            if copy_match(stream, tables, symbol, bits).is_none() {
                stream.state = State::Refused;
            }
            return;
        }
        if bits.is_past_end() {
            stream.state = State::Refused;
            return;
        }
        if symbol == alphabet::END {
            stream.end_block(bits.at);
            return;
        }
        if stream.at >= stream.limit {
            stream.state = State::Refused;
            return;
        }
        stream.out[stream.at] = symbol as u8;
        stream.at += 1;
        stream.bit = bits.at;
    }
}

/// Copies a match; None where it has no meaning, or input or output end.
#[inline(always)]
fn copy_match(stream: &mut Stream, tables: &Tables, symbol: usize, mut bits: super::bits::Bits) -> Option<()> {
    let (shortest, extra) = alphabet::length(symbol)?;
    let length = shortest + bits.take(extra);
    let (symbol, codeword) = tables.far.find(bits.next)?;
    bits.take(codeword);
    let (nearest, extra) = alphabet::distance(symbol)?;
    // All in all 15 + 5 + 15 + 13 bits, fewer than are ready.
    let distance = nearest + bits.take(extra);
    let room = stream.out.len() - stream.at;
    // A front may end within a match; the room reaches as far as the front at least.
    let is_long = length > stream.limit.saturating_sub(stream.at);
    let length = if stream.front { length.min(room) } else { length };
    if bits.is_past_end() || distance > stream.at || (is_long && !stream.front) {
        return None;
    }
    copy(stream.out, stream.at, distance, length);
    stream.at += length;
    stream.bit = bits.at;
    Some(())
}

/// Copies `length` bytes from `distance` before `at` to `at`, of which the copy may itself be a part.
#[inline(always)]
fn copy(out: &mut [u8], at: usize, distance: usize, length: usize) {
    let (from, end) = (at - distance, at + length);
    let mut ready = at;
    // What is copied doubles, and stays a multiple of the period.
    while ready < end {
        let some = (ready - from).min(end - ready);
        out.copy_within(from..from + some, ready);
        ready += some;
    }
}
