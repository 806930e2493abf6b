//! The inflater beside its twin, libdeflate and zlib-rs: whole and cut streams, fronts, pairs; bytes and verdicts.
//!
//! An input is four bytes of choices and then either a zlib stream (any bytes), or data that is compressed first and then
//! damaged or cut, so that the fuzzer comes deep into streams that are valid.
#![no_main]

use std::cell::RefCell;
use std::io::Write;

use flate2::{Compression, Decompress, FlushDecompress, Status};
use libdeflater::Decompressor;
use libfuzzer_sys::fuzz_target;

#[allow(dead_code)]
#[path = "../../rust/filters/inflate/mod.rs"]
mod inflate;

use inflate::{Job, Pair, Want};

thread_local! {
    static DECODERS: RefCell<(Pair, Pair, Decompressor, Decompress)> = RefCell::new((
        Pair::fast().expect("this processor has the fast path"),
        Pair::scalar(),
        Decompressor::new(),
        Decompress::new(true),
    ));
}

fuzz_target!(|input: &[u8]| {
    let Some((&[kind, damage, place, room], rest)) = input.split_first_chunk() else { return };
    let stored = if kind & 1 == 0 { [&[0x78, 0x9C], rest].concat() } else { compress(rest, kind, damage, place) };
    DECODERS.with_borrow_mut(|(fast, scalar, libdeflate, stream)| {
        let (all, _) = zlib(stream, &stored, 1 << 14);
        // All of it; a byte less than all; its front, or part of that.
        let want = match room >> 6 {
            0 => Want::Whole(all.len()),
            1 => Want::Whole(all.len().saturating_sub(1)),
            2 => Want::Front(all.len()),
            _ => Want::Front(all.len() * usize::from(place) / 256),
        };
        let (Want::Whole(limit) | Want::Front(limit)) = want;
        // Memory of its own length, so that the sanitizer sees each byte too far.
        let slack = usize::from(room & 63) * 4;
        let [mut out, mut twin, mut first, mut second] = std::array::from_fn(|_| vec![0; limit + slack]);
        let cut = &stored[..stored.len() - usize::from(damage & 7).min(stored.len())];
        let decoded = fast.decode(Job { stored: &stored, out: &mut out, want });
        assert_eq!(decoded, scalar.decode(Job { stored: &stored, out: &mut twin, want }));
        let pair = fast.decode_two([
            Job { stored: &stored, out: &mut first, want },
            Job { stored: cut, out: &mut second, want: Want::Front(limit) },
        ]);
        assert_eq!(pair[0], decoded);
        assert!(pair[1].is_none_or(|len| second[..len] == all[..len]));
        let Some(len) = decoded else { return };
        assert!(out[..len] == twin[..len] && out[..len] == first[..len] && out[..len] == all[..len]);
        if matches!(want, Want::Front(_)) {
            assert_eq!(len, limit);
            return;
        }
        let (bytes, status) = zlib(stream, &stored, limit + 1);
        assert_eq!((bytes.len(), status), (len, Some(Status::StreamEnd)));
        assert_eq!(libdeflate.zlib_decompress(&stored, &mut twin[..limit]), Ok(len));
        assert!(out[..len] == twin[..len]);
    });
});

/// Data as a stream, with a bit turned or cut short, or neither.
fn compress(data: &[u8], kind: u8, damage: u8, place: u8) -> Vec<u8> {
    // Some of the data several times, with a step between, so that there are matches of all kinds.
    let mut all = Vec::new();
    for (turn, part) in data.chunks(1 + usize::from(damage)).enumerate() {
        for _ in 0..1 + usize::from(kind >> 1 & 3) * (turn % 5) {
            all.extend(part.iter().map(|byte| byte.wrapping_add(turn as u8 & 1)));
        }
    }
    // Each flush begins a block, and tables are built for each: few enough of them that an execution is short.
    all.truncate(1 << 13);
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), Compression::new(u32::from(kind >> 3 & 7) + 1));
    for part in all.chunks(64 + 16 * usize::from(place)) {
        encoder.write_all(part).expect("to memory");
        if kind >> 6 == 1 {
            encoder.flush().expect("to memory");
        }
    }
    let mut stored = encoder.finish().expect("to memory");
    let at = stored.len() * usize::from(place) / 256;
    match damage % 4 {
        1 => stored[at] ^= 1 << (damage >> 5),
        2 => stored.truncate(at),
        _ => {}
    }
    stored
}

/// What zlib-rs makes of a stream: up to `most` bytes, and its last word; None for an error.
fn zlib(stream: &mut Decompress, stored: &[u8], most: usize) -> (Vec<u8>, Option<Status>) {
    stream.reset(true);
    let mut out = vec![0; most];
    loop {
        let (read, written) = (stream.total_in() as usize, stream.total_out() as usize);
        let status = stream.decompress(&stored[read..], &mut out[written..], FlushDecompress::None).ok();
        let after = (stream.total_in() as usize, stream.total_out() as usize);
        if status != Some(Status::Ok) || after == (read, written) {
            out.truncate(after.1);
            return (out, status);
        }
    }
}
