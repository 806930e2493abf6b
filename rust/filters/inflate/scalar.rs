//! The fast path's twin: the same tokens from the same tables, in plain safe code.
//!
//! It decodes nothing for users. It says what the fast path is to do, runs where that cannot (other processors, Miri), and
//! tests hold the two side by side.

use super::checked;
use super::stream::{State, Stream};
use super::tables::{DISTANCE_BITS, Distance, Tables, Token, index_bits};

/// Decodes tokens until the budget is used up or the block ends.
pub(super) fn run(stream: &mut Stream, tables: &Tables) {
    while stream.state == State::Block {
        let mut left = stream.budget();
        if left == 0 {
            return;
        }
        while left > 0 && stream.state == State::Block {
            if let Some(advance) = token(stream, tables) {
                left = left.saturating_sub(if advance > 32 { 5 } else { 1 });
            } else {
                checked::symbols(stream, tables, 2);
                left = left.saturating_sub(checked::CHARGE + 1);
            }
        }
    }
}

/// One token and the bytes that it goes ahead, or None with nothing done where it leaves the fast path.
fn token(stream: &mut Stream, tables: &Tables) -> Option<usize> {
    let mut bits = stream.bits();
    let entry = tables.tokens[(bits.next & ((1 << index_bits(tables.pairs)) - 1)) as usize];
    let advance = usize::try_from(entry.advance()).ok()?;
    bits.take(entry.bits());
    let has_match = entry.tail() & Token::MATCH != 0;
    let has_literal = if tables.pairs { entry.tail() & Token::LITERAL != 0 } else { !has_match };
    let start = stream.at + usize::from(has_literal);
    if has_match {
        let half = 1 << DISTANCE_BITS;
        let found = tables.distances[half + (bits.next & (half as u64 - 1)) as usize];
        let codeword = u32::from(found.codeword() & !Distance::PERIOD);
        bits.take(codeword);
        let distance = found.nearest() as usize + bits.take(found.bits() - codeword);
        let reach = distance | usize::from(found.codeword() & Distance::PERIOD);
        if reach < advance || distance > start {
            return None;
        }
        if has_literal {
            stream.out[stream.at] = entry.tail() as u8;
        }
        for at in start..stream.at + advance {
            stream.out[at] = stream.out[at - distance];
        }
    } else {
        stream.out[stream.at] = entry.tail() as u8;
    }
    stream.at += advance;
    stream.bit = bits.at;
    Some(advance)
}
