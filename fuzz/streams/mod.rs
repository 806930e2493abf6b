//! Inputs of the fuzzer: what they look like, and how the next one is made of the last one.
//!
//! Bits turned at random seldom make a stream that a decoder gets far into: a codeword changes, and the code is no code any more,
//! or the checksum is wrong. So streams are compressed from small data by three compressors, or written block by block with
//! codes and symbols drawn by lot ([`blocks`]); then damaged, cut, joined; and mostly given the checksum that is right again.

mod blocks;
mod compressed;
mod random;

use flate2::{Decompress, FlushDecompress, Status};

use crate::inflate::{Want, adler32};
use compressed::Compressors;
use random::Random;

/// Bytes of choices in front of the streams.
const CHOICES: usize = 8;
/// Bits of the first choice that say that the twin decodes.
pub const TWIN: u8 = 0xE0;
/// Most bytes of a stream.
pub const MOST_STORED: usize = 4096;
/// Most bytes that a stream is made to decode to, most of the time.
const MOST: usize = 1000;

/// An input: choices, and one or two streams.
pub struct Case<'a> {
    choices: [u8; CHOICES],
    streams: [&'a [u8]; 2],
}

impl<'a> Case<'a> {
    pub fn read(input: &'a [u8]) -> Self {
        let (front, streams) = input.split_at(input.len().min(CHOICES));
        let mut choices = [0; CHOICES];
        choices[..front.len()].copy_from_slice(front);
        let all = &streams[..streams.len().min(MOST_STORED)];
        let first =
            if is_pair(&choices) { usize::from(u16::from_le_bytes([choices[6], choices[7]])) } else { all.len() };
        let (one, two) = all.split_at(first.min(all.len()));
        Self { choices, streams: [one, two] }
    }

    pub fn streams(&self) -> &[&'a [u8]] {
        &self.streams[..1 + usize::from(is_pair(&self.choices))]
    }

    /// Once in eight times the twin decodes instead of the fast path.
    pub fn is_for_twin(&self) -> bool {
        self.choices[0] & TWIN == TWIN
    }

    /// Output lies at the end of its memory, not at the start.
    pub fn is_at_end(&self) -> bool {
        self.choices[0] & 2 != 0
    }

    /// What output is filled with before.
    pub fn filling(&self) -> u8 {
        self.choices[5]
    }

    /// Bytes of output behind those that are wanted.
    pub fn room(&self, which: usize) -> usize {
        usize::from(self.choices[1 + which] >> 3) * 8
    }

    /// What is wanted of a stream that has `len` bytes: all, the front, or more than there is; `most` bytes at most.
    pub fn want(&self, which: usize, len: usize, most: usize) -> Want {
        let share = usize::from(self.choices[3 + which]);
        match self.choices[1 + which] & 7 {
            0 | 1 | 2 => Want::Whole(len),
            3 => Want::Whole(len.saturating_sub(1)),
            4 => Want::Whole((len + share).min(most)),
            5 => Want::Front(len),
            6 => Want::Front((len + 1).min(most)),
            _ => Want::Front(len * share / 256),
        }
    }
}

fn is_pair(choices: &[u8; CHOICES]) -> bool {
    choices[0] & 1 != 0
}

/// How libFuzzer itself changes bytes: data, length, most length; the length after.
pub type Mutate = fn(&mut [u8], usize, usize) -> usize;

/// Makes the next input of the last one.
pub struct Mutator {
    theirs: Mutate,
    streams: [Vec<u8>; 2],
    compressors: Compressors,
    inflate: Decompress,
    scratch: Box<[u8]>,
}

impl Mutator {
    pub fn new(theirs: Mutate) -> Self {
        Self {
            theirs,
            streams: [Vec::new(), Vec::new()],
            compressors: Compressors::new(),
            inflate: Decompress::new(false),
            scratch: vec![0; MOST].into_boxed_slice(),
        }
    }

    /// Changes `data[..size]`; returns how long it is now, `max_size` at most.
    pub fn mutate(&mut self, data: &mut [u8], size: usize, max_size: usize, seed: u32) -> usize {
        let mut random = Random::new(seed);
        let Case { mut choices, streams } = Case::read(&data[..size]);
        for (own, stream) in self.streams.iter_mut().zip(streams) {
            own.clear();
            own.extend_from_slice(stream);
        }
        if random.one_in(3) {
            let fresh = random.next().to_le_bytes();
            choices[..6].copy_from_slice(&fresh[..6]);
        }
        if is_pair(&choices) && self.streams[1].is_empty() {
            self.renew(1, &mut random);
        }
        let which = usize::from(is_pair(&choices) && random.one_in(2));
        if self.streams[which].len() < 8 {
            self.renew(which, &mut random);
        } else {
            self.change(which, &mut random);
        }
        let room = max_size.min(CHOICES + MOST_STORED).saturating_sub(CHOICES);
        self.streams[0].truncate(room);
        choices[6..].copy_from_slice(&(self.streams[0].len() as u16).to_le_bytes());
        self.streams[1].truncate(if is_pair(&choices) { room - self.streams[0].len() } else { 0 });
        let parts = [&choices[..], &self.streams[0], &self.streams[1]];
        let mut at = 0;
        for part in parts {
            let len = part.len().min(max_size - at);
            data[at..at + len].copy_from_slice(&part[..len]);
            at += len;
        }
        at
    }

    /// Another stream, compressed or written.
    fn renew(&mut self, which: usize, random: &mut Random) {
        let stream = &mut self.streams[which];
        stream.clear();
        stream.extend_from_slice(&[0x78, 0x9C]);
        if random.one_in(4) {
            self.compressors.write(stream, random);
        } else {
            blocks::write(stream, random);
        }
        self.mend(which, random);
    }

    fn change(&mut self, which: usize, random: &mut Random) {
        let [one, two] = &mut self.streams;
        let (stream, other) = if which == 0 { (one, two) } else { (two, one) };
        match random.below(16) {
            0..3 => return self.renew(which, random),
            3..9 => {
                for _ in 0..1 + random.small(4) {
                    // Headers of blocks are easily ruined, so rather behind them.
                    let bit = 8 * stream.len() - 1 - random.below(8 * stream.len()) / (1 + random.below(3));
                    stream[bit / 8] ^= 1 << (bit % 8);
                }
            }
            9 | 10 => {
                let len = stream.len() - 1 - random.small(stream.len());
                stream.truncate(len);
                return;
            }
            11 => {
                let at = random.below(stream.len());
                stream.insert(at, random.next() as u8);
            }
            12 => {
                stream.remove(random.below(stream.len()));
            }
            13 => {
                let at = random.below(stream.len());
                let from = random.below(other.len() + 1);
                stream.truncate(at);
                stream.extend_from_slice(&other[from..]);
            }
            14 => {
                let len = stream.len();
                stream.resize(len + 16, 0);
                let len = (self.theirs)(stream, len, len + 16);
                stream.truncate(len);
            }
            // Bytes behind the stream.
            _ => {
                let some = random.small(40);
                stream.extend((0..some).map(|i| i as u8 ^ 0x5A));
                return;
            }
        }
        if !random.one_in(4) {
            self.mend(which, random);
        }
    }

    /// Gives a stream its header and the checksum that is right, if it has an end.
    fn mend(&mut self, which: usize, random: &mut Random) {
        let stream = &mut self.streams[which];
        if stream.len() < 3 {
            return;
        }
        if !random.one_in(16) {
            stream[..2].copy_from_slice(&[0x78, 0x9C]);
        }
        self.inflate.reset(false);
        let status = self.inflate.decompress(&stream[2..], &mut self.scratch, FlushDecompress::Finish);
        if status.is_ok_and(|status| status == Status::StreamEnd) {
            stream.truncate(2 + self.inflate.total_in() as usize);
            let decoded = &self.scratch[..self.inflate.total_out() as usize];
            stream.extend_from_slice(&adler32(decoded).to_be_bytes());
        }
    }
}
