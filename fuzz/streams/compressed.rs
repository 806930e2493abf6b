//! Streams of libdeflate, zlib-rs and miniz at all levels, of small data of many kinds.

use flate2::{Compress, Compression, FlushCompress};
use libdeflater::{CompressionLvl, Compressor};
use miniz_oxide::deflate::core::{CompressorOxide, TDEFLFlush, compress};

use super::MOST;
use super::random::Random;

/// Every compressor at every level, made at its first use.
pub struct Compressors {
    libdeflate: [Option<Compressor>; 13],
    zlib: [Option<Compress>; 10],
    miniz: Box<CompressorOxide>,
    data: Vec<u8>,
}

impl Compressors {
    pub fn new() -> Self {
        Self {
            libdeflate: [const { None }; 13],
            zlib: [const { None }; 10],
            miniz: Box::new(CompressorOxide::new(0)),
            data: Vec::new(),
        }
    }

    /// Appends a stream without zlib's header and checksum.
    pub fn write(&mut self, stored: &mut Vec<u8>, random: &mut Random) {
        self.data.clear();
        fill(&mut self.data, random);
        let data = &self.data;
        let start = stored.len();
        stored.resize(start + 2 * data.len() + 1024, 0);
        let room = &mut stored[start..];
        let written = match random.below(if cfg!(miri) { 2 } else { 3 }) {
            2 => {
                // The levels from 10 on begin with megabytes of tables.
                let level = if random.one_in(200) { 10 + random.below(3) } else { random.below(10) };
                let compressor = self.libdeflate[level]
                    .get_or_insert_with(|| Compressor::new(CompressionLvl::new(level as i32).expect("a level")));
                compressor.deflate_compress(data, room).expect("there is room")
            }
            0 => {
                let level = random.below(10);
                let zlib = self.zlib[level].get_or_insert_with(|| Compress::new(Compression::new(level as u32), false));
                zlib.reset();
                let flush = [FlushCompress::None, FlushCompress::Full, FlushCompress::Partial][random.below(3)];
                let cut = random.below(data.len() + 1);
                zlib.compress(&data[..cut], room, flush).expect("to memory");
                let (read, written) = (zlib.total_in() as usize, zlib.total_out() as usize);
                zlib.compress(&data[read..], &mut room[written..], FlushCompress::Finish).expect("to memory");
                zlib.total_out() as usize
            }
            _ => {
                self.miniz.reset();
                self.miniz.set_compression_level_raw(random.below(10) as u8);
                compress(&mut self.miniz, data, room, TDEFLFlush::Finish).2
            }
        };
        stored.truncate(start + written);
    }
}

/// Indices, counts, repeats, few letters, noise.
fn fill(data: &mut Vec<u8>, random: &mut Random) {
    let len = random.small(MOST);
    match random.below(6) {
        0 => {
            let (mut column, step) = (0_u32, 1 + random.below(60));
            while data.len() < len {
                column = (column + 1 + random.below(step) as u32) % 3000;
                data.extend_from_slice(&column.to_le_bytes());
            }
        }
        1 => {
            let most = 1 + random.small(200) as u64;
            while data.len() < len {
                data.extend_from_slice(&(((random.next().trailing_zeros() as u64) % most + 1) as f32).to_le_bytes());
            }
        }
        2 => {
            while data.len() < len {
                let (period, length) = (1 + random.small(70), 1 + random.small(400));
                let first = random.next() as usize;
                data.extend((0..length).map(|at| (at % period * 37 + first) as u8));
            }
        }
        3 => {
            let letters = 1 + random.small(256);
            data.extend((0..len).map(|_| random.below(letters) as u8));
        }
        4 => {
            data.resize(len, 0);
            for _ in 0..random.small(len + 1) {
                data[random.below(len)] = random.next() as u8;
            }
        }
        _ => data.extend((0..len).map(|_| random.next() as u8)),
    }
}
