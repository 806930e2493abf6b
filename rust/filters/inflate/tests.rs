//! Fast path and twin beside libdeflate and zlib-rs: whole, cut and damaged streams, all types of blocks, fronts, pairs.

use std::cell::RefCell;
use std::process::Command;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use libdeflater::{CompressionLvl, Compressor, Decompressor};
use proptest::prelude::*;

use super::super::deflate::Inflater;
use super::super::tests::encode::repetitive;
use super::*;

/// What stands around the memory that a stream may write to.
const GUARD: u8 = 0xC7;

thread_local! {
    static DECODERS: RefCell<Vec<Pair>> = RefCell::new(Pair::fast().into_iter().chain([Pair::scalar()]).collect());
}

/// What each decoder gives: the fast path, where there is one, and the twin.
fn by_each<T>(decode: impl FnMut(&mut Pair) -> T) -> Vec<T> {
    DECODERS.with_borrow_mut(|decoders| decoders.iter_mut().map(decode).collect())
}

/// Decodes alone, checks that nothing was written outside of the output, and gives the bytes.
fn decode(pair: &mut Pair, stored: &[u8], want: Want, room: usize) -> Option<Vec<u8>> {
    let mut memory = vec![GUARD; room + 128];
    let decoded = pair.decode(Job { stored, out: &mut memory[64..64 + room], want });
    assert!(memory[..64].iter().chain(&memory[64 + room..]).all(|&byte| byte == GUARD), "written outside");
    decoded.map(|len| memory[64..64 + len].to_vec())
}

/// All of a stream, `most` bytes at most: from every decoder, which must agree; `None` where the stream is refused.
fn whole(stored: &[u8], most: usize, slack: usize) -> Option<Vec<u8>> {
    let results = by_each(|pair| decode(pair, stored, Want::Whole(most), most + slack));
    assert!(results.iter().all(|result| *result == results[0]), "fast path and twin differ");
    if let Some(bytes) = &results[0] {
        let mut out = vec![0; most];
        assert_eq!(Decompressor::new().zlib_decompress(stored, &mut out), Ok(bytes.len()), "libdeflate refuses it");
        assert_eq!(&out[..bytes.len()], bytes, "libdeflate's bytes differ");
        let (out, status) = stream(stored, most + 1);
        assert_eq!((&out, status), (bytes, Some(Status::StreamEnd)), "zlib differs");
    }
    results.into_iter().next().flatten()
}

/// The first bytes of a stream, as [`whole`].
fn front(stored: &[u8], wanted: usize, slack: usize) -> Option<Vec<u8>> {
    let results = by_each(|pair| decode(pair, stored, Want::Front(wanted), wanted + slack));
    assert!(results.iter().all(|result| *result == results[0]), "fast path and twin differ");
    if let Some(bytes) = &results[0] {
        assert_eq!(*bytes, stream(stored, wanted).0, "zlib differs");
    }
    results.into_iter().next().flatten()
}

/// What zlib-rs makes of a stream: up to `most` bytes, and its last word; None for an error.
fn stream(stored: &[u8], most: usize) -> (Vec<u8>, Option<Status>) {
    let mut zlib = Decompress::new(true);
    let mut out = vec![0; most];
    loop {
        let before = (zlib.total_in(), zlib.total_out());
        let (input, room) = (&stored[before.0 as usize..], &mut out[before.1 as usize..]);
        let status = zlib.decompress(input, room, FlushDecompress::None).ok();
        let after = (zlib.total_in(), zlib.total_out());
        if status != Some(Status::Ok) || before == after {
            out.truncate(after.1 as usize);
            return (out, status);
        }
    }
}

/// A writer of streams: zlib-rs, which may flush blocks in between, or libdeflate.
#[derive(Clone, Copy, Debug)]
enum Writer {
    Zlib { level: u32, block: usize, flush: bool },
    Libdeflate { level: i32 },
}

impl Writer {
    fn write(self, data: &[u8]) -> Vec<u8> {
        match self {
            Self::Zlib { level, block, flush } => {
                let mut zlib = Compress::new(Compression::new(level), true);
                let mut stored = Vec::with_capacity(data.len() + data.len() / block * 16 + 1024);
                let flush = if flush { FlushCompress::Full } else { FlushCompress::Partial };
                for part in data.chunks(block) {
                    zlib.compress_vec(part, &mut stored, flush).unwrap();
                }
                assert_eq!(zlib.compress_vec(&[], &mut stored, FlushCompress::Finish).unwrap(), Status::StreamEnd);
                assert_eq!(zlib.total_in(), data.len() as u64);
                stored
            }
            Self::Libdeflate { level } => {
                let mut compressor = Compressor::new(CompressionLvl::new(level).unwrap());
                let mut stored = vec![0; compressor.zlib_compress_bound(data.len())];
                let len = compressor.zlib_compress(data, &mut stored).unwrap();
                stored.truncate(len);
                stored
            }
        }
    }
}

fn writer() -> impl Strategy<Value = Writer> {
    prop_oneof![
        (0_u32..10, prop_oneof![1_usize..40, 300_usize..5000, Just(1 << 20)], any::<bool>())
            .prop_map(|(level, block, flush)| Writer::Zlib { level, block, flush }),
        (0..13).prop_map(|level| Writer::Libdeflate { level }),
    ]
}

/// Sorted column indices of rows.
fn indices() -> impl Strategy<Value = Vec<u8>> {
    (1_u32..3000, prop::collection::vec(0_u32..40, 0..1500)).prop_map(|(columns, steps)| {
        let next = |at: &mut u32, step: u32| {
            *at = (*at + 1 + step) % columns;
            Some(*at)
        };
        steps.into_iter().scan(0, |at, step| next(at, step)).flat_map(u32::to_le_bytes).collect()
    })
}

/// Counts as numbers of 4 or 8 bytes.
fn counts() -> impl Strategy<Value = Vec<u8>> {
    (any::<bool>(), prop::collection::vec(prop_oneof![9 => 1_u8..4, 1 => any::<u8>()], 0..1500)).prop_map(
        |(wide, counts)| {
            let bytes = |count: u8| {
                if wide { f64::from(count).to_le_bytes().to_vec() } else { f32::from(count).to_le_bytes().to_vec() }
            };
            counts.into_iter().flat_map(bytes).collect()
        },
    )
}

/// Repeats of every period and length.
fn periods() -> impl Strategy<Value = Vec<u8>> {
    let piece = (prop::collection::vec(any::<u8>(), 1..70), 1_usize..400)
        .prop_map(|(period, len)| period.into_iter().cycle().take(len).collect::<Vec<u8>>());
    prop::collection::vec(piece, 0..20).prop_map(|pieces| pieces.concat())
}

fn data() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![indices(), counts(), periods(), repetitive(), prop::collection::vec(any::<u8>(), 0..3000)]
}

/// Slack behind the output: none, some, all.
fn slack() -> impl Strategy<Value = usize> {
    prop_oneof![Just(0), 1..SLACK, Just(SLACK), SLACK..2000]
}

proptest! {
    #[test]
    fn whole_streams_are_decoded(data in data(), writer in writer(), slack in slack(), more in 0_usize..3, trailing in 0_usize..20) {
        let mut stored = writer.write(&data);
        stored.resize(stored.len() + trailing, 0x5A);
        prop_assert_eq!(whole(&stored, data.len() + more, slack), Some(data));
    }

    #[test]
    fn a_stream_longer_than_wanted_is_refused(data in data(), writer in writer(), slack in slack(), less in 1_usize..300) {
        prop_assume!(!data.is_empty());
        let most = data.len().saturating_sub(less);
        prop_assert_eq!(whole(&writer.write(&data), most, slack), None);
    }

    #[test]
    fn fronts_are_decoded(data in data(), writer in writer(), slack in slack(), share in 0.0..=1.0) {
        let wanted = (data.len() as f64 * share) as usize;
        prop_assert_eq!(front(&writer.write(&data), wanted, slack), Some(data[..wanted].to_vec()));
    }

    #[test]
    fn more_than_there_is_is_refused(data in data(), writer in writer(), slack in slack(), more in 1_usize..300) {
        prop_assert_eq!(front(&writer.write(&data), data.len() + more, slack), None);
    }

    #[test]
    fn cut_streams_are_refused_as_a_whole_and_give_fronts(
        data in data(), writer in writer(), slack in slack(), cut in 0.0..1.0, share in 0.0..1.0,
    ) {
        let stored = writer.write(&data);
        let cut = &stored[..(stored.len() as f64 * cut) as usize];
        prop_assert_eq!(whole(cut, data.len(), slack), None);
        let (there, _) = stream(cut, data.len());
        let wanted = (there.len() as f64 * share) as usize;
        let is_zlib = cut.len() >= 2;
        prop_assert_eq!(front(cut, wanted, slack), is_zlib.then(|| data[..wanted].to_vec()));
        front(cut, there.len() + 1, slack);
    }

    #[test]
    fn damage_is_refused_or_gives_what_others_give(
        data in data(), writer in writer(), slack in slack(), bits in prop::collection::vec(any::<prop::sample::Index>(), 1..4),
        share in 0.0..1.0,
    ) {
        let mut stored = writer.write(&data);
        for bit in bits {
            let bit = bit.index(8 * stored.len());
            stored[bit / 8] ^= 1 << (bit % 8);
        }
        whole(&stored, data.len(), slack);
        front(&stored, (data.len() as f64 * share) as usize, slack);
    }

    #[test]
    fn garbage_is_refused_or_gives_what_others_give(stored: Vec<u8>, most in 0_usize..2000, slack in slack()) {
        let stored = [&[0x78, 0x9C], &stored[..]].concat();
        whole(&stored, most, slack);
        front(&stored, most, slack);
    }

    #[test]
    fn two_streams_are_decoded_as_each_alone(
        one in data(), two in data(), writers in (writer(), writer()), slack in slack(), damage: prop::sample::Index, is_damaged: bool,
        share in 0.0..1.0, is_front: bool,
    ) {
        let stored = writers.0.write(&one);
        let mut other = writers.1.write(&two);
        if is_damaged {
            let bit = damage.index(8 * other.len());
            other[bit / 8] ^= 1 << (bit % 8);
        }
        let want = if is_front { Want::Front((two.len() as f64 * share) as usize) } else { Want::Whole(two.len()) };
        for results in by_each(|pair| {
            let expected = decode(pair, &other, want, two.len() + slack);
            [false, true].map(|turn| {
                let mut out = [vec![0; one.len() + slack], vec![0; two.len() + slack]];
                let [first, second] = &mut out;
                let mut jobs = [
                    Job { stored: &stored, out: first, want: Want::Whole(one.len()) },
                    Job { stored: &other, out: second, want },
                ];
                if turn {
                    jobs.reverse();
                }
                let mut decoded = pair.decode_two(jobs);
                if turn {
                    decoded.reverse();
                }
                (decoded, out, expected.clone())
            })
        }) {
            for (decoded, out, expected) in results {
                prop_assert_eq!(decoded[0], Some(one.len()));
                prop_assert!(out[0][..one.len()] == one);
                prop_assert_eq!(decoded[1].map(|len| out[1][..len].to_vec()), expected);
            }
        }
    }
}

/// Numbers that look like noise.
fn noise() -> impl FnMut() -> u32 {
    let mut state = 1_u32;
    move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 16
    }
}

#[test]
fn every_front_of_small_streams() {
    let mut noise = noise();
    let rows: Vec<u8> = (0..100_u32).flat_map(|i| (i % 83 * 360 + noise() % 300).to_le_bytes()).collect();
    let counts: Vec<u8> = (0..100).flat_map(|_| ((noise().trailing_zeros() + 1) as f32).to_le_bytes()).collect();
    let random: Vec<u8> = (0..300).map(|_| noise() as u8).collect();
    let runs: Vec<u8> = (1_u8..20).flat_map(|i| vec![i; 3 * usize::from(i)]).collect();
    for data in [rows, counts, random, runs] {
        for writer in [
            Writer::Zlib { level: 0, block: 200, flush: false },
            Writer::Zlib { level: 4, block: 1 << 20, flush: false },
            Writer::Zlib { level: 9, block: 33, flush: true },
            Writer::Libdeflate { level: 12 },
        ] {
            let stored = writer.write(&data);
            for wanted in 0..=data.len() {
                for slack in [0, SLACK] {
                    assert_eq!(front(&stored, wanted, slack).as_deref(), Some(&data[..wanted]), "{writer:?}");
                }
            }
        }
    }
}

/// Long chunks, as files have them: every block of them begins anew, and codewords are long.
#[test]
fn long_streams() {
    let mut noise = noise();
    let mut column = 0;
    let indices: Vec<u8> = (0..100_000)
        .flat_map(|_| {
            column = (column + 1 + noise() % (1 + noise() % 60)) % 30_000;
            column.to_le_bytes()
        })
        .collect();
    let values: Vec<u8> =
        (0..100_000).flat_map(|_| ((noise() % (1 + noise() % 50)) as f32).ln_1p().to_le_bytes()).collect();
    let sparse: Vec<u8> = (0..400_000).map(|_| if noise().is_multiple_of(50) { noise() as u8 } else { 0 }).collect();
    for data in [&indices, &values, &sparse] {
        for level in [1, 4, 9] {
            let stored = Writer::Zlib { level, block: 1 << 20, flush: false }.write(data);
            assert!(whole(&stored, data.len(), 0).as_ref() == Some(data));
            assert!(whole(&stored, data.len(), SLACK).as_ref() == Some(data));
        }
    }
    let stored = [&indices, &values].map(|data| Writer::Zlib { level: 4, block: 1 << 20, flush: false }.write(data));
    by_each(|pair| {
        let (mut one, mut two) = (vec![0; indices.len()], vec![0; values.len()]);
        let decoded = pair.decode_two([
            Job { stored: &stored[0], out: &mut one, want: Want::Whole(indices.len()) },
            Job { stored: &stored[1], out: &mut two, want: Want::Whole(values.len()) },
        ]);
        assert_eq!(decoded, [Some(indices.len()), Some(values.len())]);
        assert!(one == indices && two == values);
    });
}

/// The choice is made once in a process, so this test runs itself again in one that has the variable.
#[test]
fn the_environment_turns_it_off() {
    let is_off = std::env::var_os(SWITCH).is_some_and(|value| value == "libdeflate");
    assert_eq!(Pair::new().is_some(), !is_off && Pair::fast().is_some());
    let mut noise = noise();
    let data: Vec<u8> = (0..2000_u32).flat_map(|i| (20 * i + noise() % 20).to_le_bytes()).collect();
    let stored = Writer::Libdeflate { level: 6 }.write(&data);
    let (mut inflater, mut out) = (Inflater::default(), [vec![0; 9000], vec![0; 9000]]);
    let jobs = out.each_mut().map(|out| Job { stored: &stored, out, want: Want::Whole(8000) });
    let expected = if Pair::new().is_some() { Some(8000) } else { None };
    assert_eq!(inflater.decode_two(jobs), [expected; 2]);
    // Nobody else has written there.
    assert!(out.iter().all(|out| if expected.is_some() {
        out[..8000] == data
    } else {
        out.iter().all(|&byte| byte == 0)
    }));
    assert_eq!(inflater.decode_prefix(&stored, &mut out[0], 5000), Ok(5000));
    assert!(out[0][..5000] == data[..5000]);
    if !is_off {
        let this = concat!(module_path!(), "::the_environment_turns_it_off");
        let this = this.split_once("::").map_or(this, |(_, inside)| inside);
        let mut again = Command::new(std::env::current_exe().unwrap());
        let output = again.args(["--exact", this]).env(SWITCH, "libdeflate").output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
    }
}

/// Codes that one of the others takes and one does not are nobody's business here.
#[test]
fn codes_that_are_disputed_are_refused() {
    for (what, block) in [
        // Bits, lowest first: last block, dynamic, then counts and code lengths.
        ("287 literals and lengths", bits(&[(1, 1), (2, 2), (30, 5), (0, 5), (15, 4)])),
        ("31 distances", bits(&[(1, 1), (2, 2), (0, 5), (30, 5), (15, 4)])),
        ("a type of block that there is not", bits(&[(1, 1), (3, 2)])),
        ("an incomplete code of code lengths", bits(&[(1, 1), (2, 2), (0, 5), (0, 5), (0, 4), (1, 3)])),
        ("an over-full code of code lengths", bits(&[(1, 1), (2, 2), (0, 5), (0, 5), (0, 4), (1, 3), (1, 3), (1, 3)])),
        ("the length symbol 286 of the fixed code", bits(&[(1, 1), (1, 2), (0b0110_0011, 8)])),
        ("a distance before the start", bits(&[(1, 1), (1, 2), (0b000_0001, 7), (0, 5)])),
    ] {
        let stored = [&[0x78, 0x9C][..], &block, &[0; 40]].concat();
        assert_eq!(whole(&stored, 1000, 0), None, "{what}");
    }
}

#[test]
fn headers_other_than_zlib_s_are_refused() {
    let good = Writer::Libdeflate { level: 6 }.write(b"something");
    for header in [[0x78, 0x9D], [0x79, 0x9C], [0x88, 0x1C], [0x78, 0xBB], [0x1F, 0x8B]] {
        assert_eq!(whole(&[&header, &good[2..]].concat(), 9, 0), None, "{header:?}");
    }
    assert_eq!(whole(&[], 9, 0), None);
    assert_eq!(whole(&[0x78], 9, 0), None);
    let mut wrong = good.clone();
    let end = wrong.len() - 1;
    wrong[end] ^= 1;
    assert_eq!(whole(&good, 9, 0).as_deref(), Some(&b"something"[..]));
    assert_eq!(whole(&wrong, 9, 0), None, "wrong Adler-32");
}

/// Numbers and their widths, packed lowest bit first.
fn bits(fields: &[(u32, u32)]) -> Vec<u8> {
    let all: Vec<u8> =
        fields.iter().flat_map(|&(value, width)| (0..width).map(move |bit| (value >> bit & 1) as u8)).collect();
    all.chunks(8).map(|byte| byte.iter().enumerate().map(|(place, bit)| bit << place).sum()).collect()
}
