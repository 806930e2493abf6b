//! Tests of whole pipelines, and the encoders that the tests of all filters share.
//!
//! The encoders are other people's code where there is any (zlib-rs, libzstd, `lz4_flex`); the rest is written the
//! plainest way.

use proptest::prelude::*;

use super::*;

/// The chunk behind all stored bytes in these tests: `np.array([1, 1, 2, …], dtype="<i4")`.
pub(crate) fn ints() -> Vec<u8> {
    let values = [1, 1, 2, 1, 3, 1, 1, 1, 258, 70000, 1, 1, 1, 1, 5, 1];
    values.into_iter().flat_map(i32::to_le_bytes).collect()
}

pub(crate) mod encode {
    #![allow(clippy::unwrap_used)]

    use std::io::Write;

    use proptest::prelude::*;

    use super::super::Filter;

    /// Data with short and long repeats near and far, as codecs meet it.
    pub(crate) fn repetitive() -> impl Strategy<Value = Vec<u8>> {
        let piece = (prop::collection::vec(0_u8..4, 1..40), 1_usize..40).prop_map(|(bytes, times)| bytes.repeat(times));
        let noise = prop::collection::vec(any::<u8>(), 0..60);
        let pieces = prop::collection::vec(prop_oneof![piece, noise], 0..12);
        pieces.prop_map(|pieces| pieces.concat())
    }

    pub(crate) fn filter(filter: &Filter, data: &[u8]) -> Vec<u8> {
        match filter {
            Filter::Deflate => deflate(data),
            Filter::Shuffle { element_size } => shuffle(data, *element_size),
            Filter::Fletcher32 => fletcher32(data),
            Filter::Lzf => lzf(data),
            Filter::Lz4 => lz4(data, 1000),
            Filter::Zstd => zstd(data),
            Filter::Bitshuffle(_) | Filter::Blosc => unimplemented!("they have tests of their own"),
        }
    }

    pub(crate) fn deflate(data: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::new(4));
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    pub(crate) fn libdeflate(data: &[u8]) -> Vec<u8> {
        let mut compressor = libdeflater::Compressor::new(libdeflater::CompressionLvl::default());
        let mut stored = vec![0; compressor.zlib_compress_bound(data.len())];
        let len = compressor.zlib_compress(data, &mut stored).unwrap();
        stored.truncate(len);
        stored
    }

    pub(crate) fn zstd(data: &[u8]) -> Vec<u8> {
        ::zstd::bulk::compress(data, 3).unwrap()
    }

    pub(crate) fn lz4(data: &[u8], block_size: usize) -> Vec<u8> {
        let mut stored = (data.len() as u64).to_be_bytes().to_vec();
        stored.extend((block_size as u32).to_be_bytes());
        for block in data.chunks(block_size) {
            let compressed = lz4_flex::block::compress(block);
            let smaller = if compressed.len() < block.len() { &compressed } else { block };
            stored.extend((smaller.len() as u32).to_be_bytes());
            stored.extend(smaller);
        }
        stored
    }

    /// Greedy, and slow: at each place the longest match among the 40 nearest distances and a far one.
    pub(crate) fn lzf(data: &[u8]) -> Vec<u8> {
        let mut stored = Vec::new();
        let mut literals = Vec::new();
        let mut at = 0;
        while at < data.len() {
            let length = |distance: usize| {
                let ahead = data[at..].iter().zip(&data[at - distance..]);
                ahead.take(264).take_while(|(a, b)| a == b).count()
            };
            let distances = (1..=40).chain([1000, 8192]).filter(|&distance| distance <= at);
            let best = distances.map(|distance| (length(distance), distance)).max();
            let Some((length, distance)) = best.filter(|&(length, _)| length > 2) else {
                literals.push(data[at]);
                at += 1;
                continue;
            };
            flush(&mut literals, &mut stored);
            let (run, back) = (length - 2, distance - 1);
            stored.push((run.min(7) << 5 | back >> 8) as u8);
            if run >= 7 {
                stored.push((run - 7) as u8);
            }
            stored.push((back & 0xff) as u8);
            at += length;
        }
        flush(&mut literals, &mut stored);
        stored
    }

    fn flush(literals: &mut Vec<u8>, stored: &mut Vec<u8>) {
        for run in literals.chunks(32) {
            stored.push(run.len() as u8 - 1);
            stored.extend(run);
        }
        literals.clear();
    }

    pub(crate) fn shuffle(data: &[u8], element_size: usize) -> Vec<u8> {
        let count = data.len().checked_div(element_size).unwrap_or(0);
        let mut stored = data.to_vec();
        for element in 0..count {
            for byte in 0..element_size {
                stored[byte * count + element] = data[element * element_size + byte];
            }
        }
        stored
    }

    /// `H5_checksum_fletcher32`, folding after every word.
    pub(crate) fn fletcher32(data: &[u8]) -> Vec<u8> {
        let (mut sum1, mut sum2) = (0_u32, 0_u32);
        for word in data.chunks(2) {
            sum1 += u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0));
            sum1 = (sum1 & 0xffff) + (sum1 >> 16);
            sum2 += sum1;
            sum2 = (sum2 & 0xffff) + (sum2 >> 16);
        }
        [data, &(sum2 << 16 | sum1).to_le_bytes()].concat()
    }
}

fn any_filter() -> impl Strategy<Value = Filter> {
    prop_oneof![
        Just(Filter::Deflate),
        (0_usize..10).prop_map(|element_size| Filter::Shuffle { element_size }),
        Just(Filter::Fletcher32),
        Just(Filter::Lzf),
        Just(Filter::Lz4),
        Just(Filter::Zstd),
    ]
}

fn any_filters() -> impl Strategy<Value = Vec<Filter>> {
    prop::collection::vec(any_filter(), 0..5)
}

fn write(filters: &[Filter], mask: u32, data: &[u8]) -> Vec<u8> {
    let applied = filters.iter().enumerate().filter(|(place, _)| mask >> place & 1 == 0);
    applied.fold(data.to_vec(), |data, (_, filter)| encode::filter(filter, &data))
}

fn read(filters: &[Filter], stored: &[u8], mask: u32, len: usize) -> Result<Vec<u8>, DecodeError> {
    let mut out = vec![0; len];
    Pipeline::new(filters.to_vec()).decode(&mut Decoder::new(), stored, mask, &mut out)?;
    Ok(out)
}

/// Pipelines that h5py 3.16 (HDF5 2.0) wrote, through `create_dataset` or, where the order is its own, through a
/// creation property list; the stored bytes are those of `id.read_direct_chunk`.
#[test]
fn reads_what_h5py_wrote() {
    let shuffle = |element_size| Filter::Shuffle { element_size };
    let floats: Vec<u8> = (0..9_u8).flat_map(|i| f64::from(i).to_le_bytes()).collect();
    let counts: Vec<u8> = (0..20_i32).flat_map(i32::to_le_bytes).collect();
    for (filters, mask, stored, expected) in [
        (
            vec![shuffle(4), Filter::Deflate, Filter::Fletcher32],
            0,
            &[
                0x78, 0x5e, 0x63, 0x64, 0x64, 0x62, 0x64, 0x66, 0x64, 0x64, 0x64, 0x2a, 0x00, 0x12, 0x8c, 0xac, 0x8c,
                0x0c, 0x50, 0xc0, 0x28, 0x08, 0x63, 0xc1, 0x04, 0xd0, 0xf8, 0x50, 0x00, 0x00, 0x20, 0x2d, 0x00, 0x9b,
                0x58, 0x80, 0x00, 0xfa,
            ][..],
            ints(),
        ),
        (
            vec![shuffle(8), Filter::Lzf, Filter::Fletcher32],
            0,
            &[
                0x01, 0x00, 0x00, 0xe0, 0x2c, 0x00, 0x0a, 0xf0, 0x00, 0x08, 0x10, 0x14, 0x18, 0x1c, 0x20, 0x00, 0x3f,
                0x40, 0x40, 0x00, 0x01, 0x40, 0x40, 0x89, 0x41, 0x09, 0xd1,
            ],
            floats,
        ),
        (
            vec![shuffle(4), Filter::Lzf],
            0,
            &[
                0x14, 0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x0a, 0x0b, 0x0c, 0x0d, 0x0e, 0x0f,
                0x10, 0x11, 0x12, 0x13, 0x00, 0xe0, 0x30, 0x00, 0x01, 0x00, 0x00,
            ],
            counts,
        ),
        // Incompressible: h5py skipped LZF, the second filter.
        (
            vec![shuffle(1), Filter::Lzf],
            2,
            &[0xd9, 0xa3, 0x82, 0x45, 0x4e, 0x0a, 0x13, 0x04, 0x2c, 0xd0, 0xa6, 0xe9, 0x80, 0x9b, 0xf8, 0xba],
            vec![0xd9, 0xa3, 0x82, 0x45, 0x4e, 0x0a, 0x13, 0x04, 0x2c, 0xd0, 0xa6, 0xe9, 0x80, 0x9b, 0xf8, 0xba],
        ),
        (
            vec![Filter::Fletcher32, Filter::Deflate],
            0,
            &[
                0x78, 0x9c, 0x63, 0x64, 0x60, 0x60, 0x60, 0x04, 0x62, 0x26, 0x28, 0xcd, 0x0c, 0xa5, 0x61, 0x98, 0x09,
                0x48, 0x14, 0x08, 0x32, 0xa2, 0x88, 0x81, 0x30, 0x2b, 0x94, 0x16, 0xea, 0x60, 0x9d, 0x03, 0x00, 0x16,
                0x52, 0x01, 0xd6,
            ],
            ints(),
        ),
        (
            vec![Filter::Lzf, Filter::Deflate],
            0,
            &[
                0x78, 0x9c, 0x63, 0x61, 0x64, 0x60, 0x60, 0x60, 0x54, 0x60, 0x66, 0x60, 0x52, 0x60, 0x76, 0x60, 0x67,
                0x60, 0x5e, 0xc0, 0xee, 0xc0, 0xed, 0x00, 0xe2, 0xb1, 0x30, 0x15, 0x08, 0x32, 0x26, 0x70, 0x2b, 0x70,
                0x3d, 0x60, 0x60, 0x66, 0x60, 0x4d, 0x50, 0x07, 0xaa, 0x03, 0x00, 0x53, 0x66, 0x04, 0x7d,
            ],
            ints(),
        ),
    ] {
        assert_eq!(read(&filters, stored, mask, expected.len()), Ok(expected), "{filters:?}");
    }
}

#[test]
fn knows_hdf5_ids() {
    let ids = |ids: &[(i32, &[u32])]| {
        let filters: Vec<_> = ids.iter().map(|(id, values)| (*id, values.to_vec())).collect();
        Pipeline::from_hdf5(&filters, 4)
    };
    let shuffle = |element_size| Filter::Shuffle { element_size };
    let all: [(i32, &[u32]); 7] =
        [(2, &[8]), (2, &[]), (1, &[4]), (3, &[]), (32000, &[4, 261, 64]), (32004, &[0]), (32015, &[3])];
    let expected =
        [shuffle(8), shuffle(4), Filter::Deflate, Filter::Fletcher32, Filter::Lzf, Filter::Lz4, Filter::Zstd];
    assert_eq!(ids(&all), Ok(Pipeline::new(expected.to_vec())));
    assert_eq!(ids(&[(1, &[4]), (32001, &[2, 2, 4, 400, 5, 1, 3])]), Err(UnknownFilter { id: 32001 }));
    assert_eq!(UnknownFilter { id: 32001 }.to_string(), "HDF5 filter 32001 (Blosc) is not among those decoded here");
}

#[test]
fn refuses_another_length() {
    for filters in [
        vec![],
        vec![Filter::Fletcher32],
        vec![Filter::Deflate],
        vec![Filter::Lzf],
        vec![Filter::Lz4],
        vec![Filter::Zstd],
        vec![Filter::Shuffle { element_size: 4 }],
        vec![Filter::Fletcher32, Filter::Deflate],
        vec![Filter::Shuffle { element_size: 4 }, Filter::Zstd, Filter::Fletcher32],
        vec![Filter::Lzf, Filter::Deflate],
    ] {
        let stored = write(&filters, 0, &ints());
        for len in [0, 60, 63, 65, 68, 1000] {
            let refused = read(&filters, &stored, 0, len);
            assert!(matches!(refused, Err(DecodeError::Length { .. })), "{filters:?} {len} {refused:?}");
        }
    }
}

#[test]
fn a_prefix_streams_from_one_codec_with_checksums_around_it() {
    let shuffle = || Filter::Shuffle { element_size: 4 };
    for (filters, mask, streams) in [
        (vec![], 0, true),
        (vec![Filter::Fletcher32], 0, true),
        (vec![Filter::Deflate], 0, true),
        (vec![Filter::Zstd, Filter::Fletcher32], 0, true),
        (vec![Filter::Lzf, Filter::Fletcher32, Filter::Fletcher32], 0, true),
        (vec![Filter::Lz4], 0, false),
        (vec![Filter::Fletcher32, Filter::Deflate], 0, false),
        (vec![shuffle(), Filter::Deflate], 0, false),
        (vec![shuffle(), Filter::Deflate], 1, true),
        (vec![Filter::Shuffle { element_size: 1 }, Filter::Deflate], 0, true),
        (vec![Filter::Deflate, Filter::Deflate], 0, false),
    ] {
        assert_eq!(Pipeline::new(filters.clone()).streams_prefix(mask), streams, "{filters:?}");
    }
}

#[test]
fn a_prefix_that_does_not_fit_is_refused() {
    let pipeline = Pipeline::new(vec![Filter::Deflate]);
    let stored = encode::deflate(&ints());
    for (chunk_len, room, wanted) in [(64, 10, 11), (64, 70, 65), (200, 200, 65)] {
        let decoded = pipeline.decode_prefix(&mut Decoder::new(), &stored, 0, chunk_len, &mut vec![0; room], wanted);
        assert!(matches!(decoded, Err(DecodeError::Length { .. })), "{chunk_len} {room} {wanted}");
    }
}

/// Chunks of several blocks, so that zstd streams too, and one decoder for whole chunks and prefixes in turn.
#[test]
fn prefixes_of_a_large_chunk() {
    let data: Vec<u8> = (0..300_000_u64).map(|i| ((i * i) >> 7) as u8).collect();
    let decoder = &mut Decoder::new();
    for filters in [
        vec![Filter::Deflate],
        vec![Filter::Zstd, Filter::Fletcher32],
        vec![Filter::Lzf],
        vec![Filter::Shuffle { element_size: 4 }, Filter::Zstd],
    ] {
        let stored = write(&filters, 0, &data);
        let pipeline = Pipeline::new(filters);
        for wanted in [0, 1, 131_071, 131_072, 131_073, 299_999, 300_000] {
            let mut out = vec![0; wanted];
            assert_eq!(pipeline.decode_prefix(decoder, &stored, 0, data.len(), &mut out, wanted), Ok(()));
            assert_eq!(out, data[..wanted], "{pipeline:?} {wanted}");
            let mut out = vec![0; data.len()];
            assert_eq!(pipeline.decode(decoder, &stored, 0, &mut out), Ok(()));
            assert_eq!(out, data);
        }
    }
}

/// Damage behind a streamed prefix shows only where a checksum covers it.
#[test]
fn a_prefix_is_covered_by_the_outer_checksum() {
    for (filters, refused) in [(vec![Filter::Deflate], false), (vec![Filter::Deflate, Filter::Fletcher32], true)] {
        let data: Vec<u8> = (0..9000_u32).map(|i| (i * i / 7) as u8).collect();
        let mut stored = write(&filters, 0, &data);
        let last = stored.len() - 1;
        stored[last] ^= 1;
        let pipeline = Pipeline::new(filters);
        let mut out = vec![0; data.len()];
        let decoded = pipeline.decode_prefix(&mut Decoder::new(), &stored, 0, data.len(), &mut out, 4000);
        assert_eq!(decoded.is_err(), refused, "{pipeline:?}");
    }
}

#[test]
fn a_decoder_goes_to_another_thread() {
    fn is_send<T: Send>() {}
    is_send::<Decoder>();
}

/// libdeflate is twice as fast at long runs, and knows only whole chunks.
#[test]
fn most_of_a_chunk_of_runs_is_decoded_whole() {
    let mut state = 1_u32;
    let mut noise = |below: u32| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 16) % below
    };
    let indices: Vec<u8> = (0..10_000).flat_map(|i| (30 * i + noise(30)).to_le_bytes()).collect();
    let runs: Vec<u8> =
        (0..10_000).flat_map(|_| if noise(40) == 0 { noise(7) as f32 } else { 0.0 }.to_le_bytes()).collect();
    let pipeline = Pipeline::new(vec![Filter::Deflate]);
    let has_fast_path = inflate::Pair::new().is_some();
    for (data, share, is_cut) in
        [(&runs, 4, true), (&indices, 4, true), (&runs, 7, false), (&indices, 7, has_fast_path)]
    {
        let stored = encode::libdeflate(data);
        let (len, wanted) = (data.len(), data.len() / 10 * share);
        let expected = if is_cut { wanted } else { len };
        let mut outs = [Vec::new(), Vec::new(), Vec::new()];
        let [alone, one, two] = outs.each_mut().map(|out| Front { stored: &stored, mask: 0, wanted, out });
        let decoder = &mut Decoder::new();
        assert_eq!(pipeline.decode_front(decoder, len, alone), Ok(expected));
        assert_eq!(pipeline.decode_two_fronts(decoder, len, [one, two]), [Ok(expected), Ok(expected)]);
        assert!(outs.iter().all(|out| out[..wanted] == data[..wanted]));
    }
}

proptest! {
    #[test]
    fn round_trip(filters in any_filters(), mask in 0_u32..32, data in encode::repetitive()) {
        let stored = write(&filters, mask, &data);
        prop_assert_eq!(read(&filters, &stored, mask, data.len()), Ok(data));
    }

    #[test]
    fn a_prefix_is_the_front_of_the_chunk(
        filters in any_filters(),
        mask in 0_u32..32,
        data in encode::repetitive(),
        room in 0.0..=1.0,
        wanted in 0.0..=1.0,
    ) {
        let stored = write(&filters, mask, &data);
        let room = (data.len() as f64 * room) as usize;
        let wanted = (room as f64 * wanted) as usize;
        let mut out = vec![0; room];
        let pipeline = Pipeline::new(filters);
        let decoded = pipeline.decode_prefix(&mut Decoder::new(), &stored, mask, data.len(), &mut out, wanted);
        prop_assert_eq!(decoded, Ok(()));
        prop_assert_eq!(&out[..wanted], &data[..wanted]);
    }

    #[test]
    fn two_fronts_are_as_each_alone(
        filters in prop_oneof![3 => Just(vec![Filter::Deflate]), 1 => any_filters()],
        masks in prop_oneof![3 => Just([0, 0]), 1 => [0_u32..32, 0..32]],
        data in [encode::repetitive(), encode::repetitive()],
        wanted in [0.0..=1.0, 0.5..=1.5],
        damage in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
    ) {
        let len = data[0].len().min(data[1].len());
        let mut stored = [0, 1].map(|i| write(&filters, masks[i], &data[i][..len]));
        if let Some((place, value)) = damage.filter(|_| !stored[1].is_empty()) {
            let place = place.index(stored[1].len());
            stored[1][place] = value;
        }
        let wanted = wanted.map(|share| (len as f64 * f64::min(share, 1.0)) as usize);
        let pipeline = Pipeline::new(filters);
        let front = |i: usize, out| Front { stored: &stored[i], mask: masks[i], wanted: wanted[i], out };
        let (mut together, mut alone) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
        let [one, two] = &mut together;
        let got = pipeline.decode_two_fronts(&mut Decoder::new(), len, [front(0, one), front(1, two)]);
        let [one, two] = &mut alone;
        let decoder = &mut Decoder::new();
        let expected = [front(0, one), front(1, two)].map(|front| pipeline.decode_front(decoder, len, front));
        prop_assert_eq!(got[0].is_ok(), true);
        for i in 0..2 {
            prop_assert_eq!(got[i].as_ref().err(), expected[i].as_ref().err());
            if let Ok(decoded) = got[i] {
                prop_assert!(decoded >= wanted[i] && decoded <= len);
                prop_assert_eq!(&together[i][..wanted[i]], &alone[i][..wanted[i]]);
                prop_assert!(damage.is_some() || together[i][..wanted[i]] == data[i][..wanted[i]]);
            }
        }
    }

    #[test]
    fn damage_never_panics(
        filters in any_filters(),
        data in encode::repetitive(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
        len in 0_usize..1000,
    ) {
        let mut stored = write(&filters, 0, &data);
        stored.push(0);
        for (place, value) in damage {
            let place = place.index(stored.len());
            stored[place] = value;
        }
        stored.truncate(cut.index(stored.len()) + 1);
        let _ = read(&filters, &stored, 0, data.len());
        let pipeline = Pipeline::new(filters);
        let _ = pipeline.decode_prefix(&mut Decoder::new(), &stored, 0, data.len().max(len), &mut vec![0; len], len);
    }

    #[test]
    fn garbage_never_panics(filters in any_filters(), stored: Vec<u8>, mask: u32, len in 0_usize..1000) {
        let _ = read(&filters, &stored, mask, len);
    }
}
