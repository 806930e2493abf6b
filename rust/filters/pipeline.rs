//! A dataset's filters one after the other: found by their numbers in HDF5, applied to whole chunks, to the fronts of
//! chunks, or to two chunks at a time.

use super::bitshuffle::{self, Bitshuffle};
use super::error::{DecodeError, Found, check_length};
use super::inflate::{self, Job, Want};
use super::{Filter, UnknownFilter, blosc, deflate, fletcher32, lz4, lzf, shuffle, zstd};

/// Room behind a wanted prefix with which [`Pipeline::decode_prefix`] is fastest.
pub(crate) const PREFIX_ROOM: usize = inflate::SLACK;

/// Codecs and scratch buffers of one worker thread, reused from chunk to chunk.
///
/// Everything is made at its first use, so that a new one costs nothing.
#[derive(Default)]
pub struct Decoder {
    inflater: deflate::Inflater,
    zstd: zstd::Context,
    bits: bitshuffle::Scratch,
    blosc: blosc::Scratch,
    /// Output of the last intermediate stage.
    front: Vec<u8>,
    /// Output of the next intermediate stage.
    back: Vec<u8>,
    /// A whole chunk of which only a prefix is wanted.
    chunk: Vec<u8>,
}

impl Decoder {
    /// A decoder without any buffers yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

/// A dataset's filters, in the order of its creation property list: as applied when writing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pipeline {
    filters: Vec<Filter>,
}

/// The front of a chunk that is to be decoded.
pub struct Front<'a> {
    /// The chunk as stored.
    pub stored: &'a [u8],
    /// Which filters were skipped.
    pub mask: u32,
    /// Bytes that are wanted, at least.
    pub wanted: usize,
    /// Where they go; it is made as long as that takes.
    pub out: &'a mut Vec<u8>,
}

impl Front<'_> {
    /// With room behind what is wanted, so that the fast path goes to the end.
    fn job(&mut self, want: Want) -> Job<'_> {
        let (Want::Whole(len) | Want::Front(len)) = want;
        self.out.resize(len + PREFIX_ROOM, 0);
        Job { stored: self.stored, out: self.out, want }
    }
}

/// What is known of the length of a stage's output.
#[derive(Clone, Copy)]
enum Length {
    Exactly(usize),
    AtMost(usize),
}

/// What gives the front of a chunk without the rest of it.
#[derive(Clone, Copy)]
enum Codec {
    Plain,
    Deflate,
    Lzf,
    Zstd,
}

impl Pipeline {
    /// A pipeline of these filters, first applied first.
    #[must_use]
    pub fn new(filters: Vec<Filter>) -> Self {
        Self { filters }
    }

    /// The pipeline of a creation property list.
    ///
    /// `filters` are HDF5 filter ids with their client data; `type_size` is the dataset's element size in bytes, for a
    /// shuffle that does not say its own.
    ///
    /// # Errors
    /// [`UnknownFilter`] for the first filter that is not a [`Filter`].
    pub(crate) fn from_hdf5(filters: &[(i32, Vec<u32>)], type_size: usize) -> Result<Self, UnknownFilter> {
        let known = |(id, client_data): &(i32, Vec<u32>)| match id {
            1 => Ok(Filter::Deflate),
            2 => Ok(Filter::Shuffle { element_size: client_data.first().map_or(type_size, |&size| size as usize) }),
            3 => Ok(Filter::Fletcher32),
            32000 => Ok(Filter::Lzf),
            32001 if blosc::is_known(client_data) => Ok(Filter::Blosc),
            32008 => match Bitshuffle::from_hdf5(client_data, type_size) {
                Some(bitshuffle) => Ok(Filter::Bitshuffle(bitshuffle)),
                None => Err(UnknownFilter { id: *id }),
            },
            32004 => Ok(Filter::Lz4),
            32015 => Ok(Filter::Zstd),
            &id => Err(UnknownFilter { id }),
        };
        filters.iter().map(known).collect::<Result<_, _>>().map(Self::new)
    }

    /// The filters, first applied first.
    #[must_use]
    pub(crate) fn filters(&self) -> &[Filter] {
        &self.filters
    }

    /// Whether chunks are stored as they are.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.filters.is_empty()
    }

    /// Decodes one stored chunk into exactly `out.len()` bytes.
    ///
    /// Bit i of `mask` is set where filter i was skipped when the chunk was written (HDF5 spec, filter mask).
    ///
    /// # Errors
    /// [`DecodeError`] where a filter cannot be undone or does not give exactly the chunk; `out` then holds rubbish.
    pub fn decode(&self, decoder: &mut Decoder, stored: &[u8], mask: u32, out: &mut [u8]) -> Result<(), DecodeError> {
        let Decoder { inflater, zstd, bits, blosc: blocks, front, back, .. } = decoder;
        let innermost = self.applied(mask).next().map(|(place, _)| place);
        let mut in_front = false;
        let mut len = stored.len();
        for (place, filter) in self.applied(mask).rev() {
            let source = if in_front { front.as_slice() } else { stored };
            let input = &source[..len];
            if *filter == Filter::Fletcher32 {
                // Nothing moves: the data is a prefix of the input.
                len = fletcher32::verify(input)?.len();
                continue;
            }
            let is_last = innermost == Some(place);
            let length = self.length_before(place, mask, out.len());
            let output = match length {
                _ if is_last => &mut *out,
                Length::Exactly(bytes) | Length::AtMost(bytes) => room(back, bytes)?,
            };
            let written = match filter {
                Filter::Deflate => inflater.decode(input, output)?,
                Filter::Lzf => lzf::decode(input, output)?,
                Filter::Lz4 => lz4::decode(input, output)?,
                Filter::Bitshuffle(bitshuffle) => bitshuffle.decode(input, zstd, bits, output)?,
                Filter::Blosc => blosc::decode(input, &mut blosc::Codecs { inflater, zstd }, blocks, output)?,
                Filter::Zstd => zstd.decode(input, output)?,
                Filter::Shuffle { element_size } => shuffle::decode(input, *element_size, output)?,
                Filter::Fletcher32 => input.len(),
            };
            if let Length::Exactly(expected) = length {
                check_length(expected, written)?;
            }
            if is_last {
                return Ok(());
            }
            std::mem::swap(front, back);
            in_front = true;
            len = written;
        }
        // Nothing but checksums was left to undo.
        let source = if in_front { front.as_slice() } else { stored };
        let input = &source[..len];
        check_length(out.len(), input.len())?;
        out.copy_from_slice(input);
        Ok(())
    }

    /// Decodes the front of a chunk of `chunk_len` bytes.
    ///
    /// Returns the number of bytes decoded: all of them where the front cannot be had for less.
    ///
    /// # Errors
    /// As [`decode_prefix`](Self::decode_prefix).
    pub(crate) fn decode_front(
        &self,
        decoder: &mut Decoder,
        chunk_len: usize,
        Front { stored, mask, wanted, out }: Front,
    ) -> Result<usize, DecodeError> {
        let has_room = wanted + PREFIX_ROOM <= chunk_len;
        let is_cut = self
            .streamable(mask)
            .is_some_and(|codec| has_room && is_cheaper_cut(codec, decoder, stored, chunk_len, wanted));
        if is_cut {
            out.resize(wanted + PREFIX_ROOM, 0);
            self.decode_prefix(decoder, stored, mask, chunk_len, out, wanted)?;
            Ok(wanted)
        } else {
            out.resize(chunk_len, 0);
            self.decode(decoder, stored, mask, out)?;
            Ok(chunk_len)
        }
    }

    /// Decodes the fronts of two chunks of `chunk_len` bytes, as [`decode_front`](Self::decode_front) does each.
    ///
    /// Chunks that are deflated and nothing else are decoded in one loop, faster than one after the other.
    pub fn decode_two_fronts(
        &self,
        decoder: &mut Decoder,
        chunk_len: usize,
        mut fronts: [Front; 2],
    ) -> [Result<usize, DecodeError>; 2] {
        let mut lengths = [None; 2];
        if fronts.iter().all(|front| self.is_only_deflate(front.mask)) {
            let wants = fronts.each_ref().map(|front| {
                let Front { stored, wanted, .. } = *front;
                let is_worth = is_worth_cutting(Codec::Deflate, chunk_len, wanted);
                if is_worth && is_cheaper_cut(Codec::Deflate, decoder, stored, chunk_len, wanted) {
                    Want::Front(front.wanted)
                } else {
                    Want::Whole(chunk_len)
                }
            });
            let [one, two] = &mut fronts;
            let jobs = [one.job(wants[0]), two.job(wants[1])];
            lengths = decoder.inflater.decode_two(jobs);
            for (length, want) in lengths.iter_mut().zip(wants) {
                // A chunk that ends too soon is an error, with words that are found below.
                let (Want::Whole(expected) | Want::Front(expected)) = want;
                *length = length.filter(|&len| len == expected);
            }
        }
        let [one, two] = fronts;
        let mut alone = |length: Option<usize>, front: Front| match length {
            Some(len) => Ok(len),
            None => self.decode_front(decoder, chunk_len, front),
        };
        [alone(lengths[0], one), alone(lengths[1], two)]
    }

    /// Decodes at least the first `wanted` bytes of a chunk of `chunk_len` bytes into `out`.
    ///
    /// `out` holds from `wanted` to `chunk_len` bytes; those behind `wanted` are unspecified. Where the prefix is had from
    /// the front, what lies behind it is not verified, except by fletcher32 over the stored bytes.
    ///
    /// # Errors
    /// [`DecodeError`] as for [`decode`](Self::decode), and `Length` where `wanted` does not fit `out` or the chunk.
    pub fn decode_prefix(
        &self,
        decoder: &mut Decoder,
        stored: &[u8],
        mask: u32,
        chunk_len: usize,
        out: &mut [u8],
        wanted: usize,
    ) -> Result<(), DecodeError> {
        let limit = out.len().min(chunk_len);
        if wanted > limit {
            let found = Found::Exactly(limit);
            return Err(DecodeError::Length { expected: wanted, found });
        }
        if self.streamable(mask).is_some_and(|codec| is_worth_cutting(codec, chunk_len, wanted)) {
            self.stream_prefix(decoder, stored, mask, chunk_len, &mut out[..limit], wanted)
        } else if out.len() == chunk_len {
            self.decode(decoder, stored, mask, out)
        } else {
            let mut scratch = std::mem::take(&mut decoder.chunk);
            let result = room(&mut scratch, chunk_len).and_then(|chunk| {
                self.decode(decoder, stored, mask, chunk)?;
                out[..wanted].copy_from_slice(&chunk[..wanted]);
                Ok(())
            });
            decoder.chunk = scratch;
            result
        }
    }

    /// Whether a prefix of chunks with this mask is had from the front.
    #[cfg(test)]
    pub(crate) fn streams_prefix(&self, mask: u32) -> bool {
        self.streamable(mask).is_some()
    }

    /// Fills the front of `out` with the first `wanted` bytes of a chunk; only for a streamable pipeline.
    fn stream_prefix(
        &self,
        decoder: &mut Decoder,
        stored: &[u8],
        mask: u32,
        chunk_len: usize,
        out: &mut [u8],
        wanted: usize,
    ) -> Result<(), DecodeError> {
        let mut input = stored;
        for (_, filter) in self.applied(mask) {
            if *filter == Filter::Fletcher32 {
                input = fletcher32::verify(input)?;
            }
        }
        let front = &mut out[..wanted];
        let written = match self.streamable(mask) {
            Some(Codec::Deflate) => decoder.inflater.decode_prefix(input, out, wanted)?,
            Some(Codec::Lzf) => lzf::decode_prefix(input, front)?,
            Some(Codec::Zstd) => {
                if let Ok(written) = decoder.zstd.decode_prefix(input, chunk_len, front) {
                    written
                } else {
                    // A frame that cannot be streamed in little memory may still be decoded as a whole.
                    let chunk = room(&mut decoder.chunk, chunk_len)?;
                    check_length(chunk_len, decoder.zstd.decode(input, chunk)?)?;
                    front.copy_from_slice(&chunk[..wanted]);
                    wanted
                }
            }
            Some(Codec::Plain) | None => {
                check_length(chunk_len, input.len())?;
                front.copy_from_slice(&input[..wanted]);
                wanted
            }
        };
        if written < wanted {
            let found = Found::Exactly(written);
            return Err(DecodeError::Length { expected: chunk_len, found });
        }
        Ok(())
    }

    /// Whether deflate is all that was done to a chunk with this mask.
    fn is_only_deflate(&self, mask: u32) -> bool {
        let mut filters = self.applied(mask).map(|(_, filter)| filter);
        (filters.next(), filters.next()) == (Some(&Filter::Deflate), None)
    }

    /// The codec of a pipeline whose output can be had from the front: one at most, with nothing but checksums around.
    fn streamable(&self, mask: u32) -> Option<Codec> {
        let mut filters = self.applied(mask).map(|(_, filter)| filter);
        let codec = match filters.next() {
            None | Some(Filter::Fletcher32) => Codec::Plain,
            Some(Filter::Deflate) => Codec::Deflate,
            Some(Filter::Lzf) => Codec::Lzf,
            Some(Filter::Zstd) => Codec::Zstd,
            Some(Filter::Shuffle { .. } | Filter::Lz4 | Filter::Bitshuffle(_) | Filter::Blosc) => return None,
        };
        filters.all(|filter| *filter == Filter::Fletcher32).then_some(codec)
    }

    /// The filters that changed a chunk with this mask, with their places, first applied first.
    fn applied(&self, mask: u32) -> impl DoubleEndedIterator<Item = (usize, &Filter)> {
        self.filters.iter().enumerate().filter(move |(place, filter)| {
            // HDF5 has 32 filters at most (H5Z_MAX_NFILTERS), so a place beyond the mask is never skipped.
            let skipped = u32::try_from(*place).ok().and_then(|place| mask.checked_shr(place)).unwrap_or(0) & 1 == 1;
            !skipped && !matches!(filter, Filter::Shuffle { element_size: 0 | 1 })
        })
    }

    /// The length of what filter `place` was given when a chunk of `chunk_len` bytes was written.
    fn length_before(&self, place: usize, mask: u32, chunk_len: usize) -> Length {
        let inner = self.applied(mask).take_while(|(inner, _)| *inner < place);
        inner.fold(Length::Exactly(chunk_len), |length, (_, filter)| {
            match (filter, length) {
                (Filter::Shuffle { .. }, length) => length,
                (Filter::Fletcher32, Length::Exactly(bytes)) => {
                    Length::Exactly(bytes.saturating_add(fletcher32::SUM_LEN))
                }
                // Codecs make incompressible data a little longer; twice the chunk is more than any of them needs.
                _ => Length::AtMost(chunk_len.saturating_mul(2).saturating_add(64 * 1024)),
            }
        })
    }
}

/// Whether the first `wanted` bytes of a chunk are had for less than the whole.
fn is_worth_cutting(codec: Codec, chunk_len: usize, wanted: usize) -> bool {
    match codec {
        Codec::Plain | Codec::Lzf => true,
        Codec::Zstd => chunk_len > zstd::LARGEST_BLOCK,
        // A little is not worth the checksum.
        Codec::Deflate => wanted + PREFIX_ROOM.max(chunk_len / 16) <= chunk_len,
    }
}

/// Whether more than half of a chunk is had for less than the whole: not of streams at which libdeflate is twice as fast, and
/// libdeflate knows only whole ones.
fn is_cheaper_cut(codec: Codec, decoder: &mut Decoder, stored: &[u8], chunk_len: usize, wanted: usize) -> bool {
    !matches!(codec, Codec::Deflate) || wanted <= chunk_len / 2 || !decoder.inflater.is_better_whole(stored)
}

/// The first `len` bytes of a scratch buffer; their values are left over from earlier chunks.
fn room(buffer: &mut Vec<u8>, len: usize) -> Result<&mut [u8], DecodeError> {
    if let Some(missing) = len.checked_sub(buffer.len()) {
        buffer.try_reserve_exact(missing).map_err(|_| DecodeError::OutOfMemory { bytes: len })?;
        buffer.resize(len, 0);
    }
    Ok(&mut buffer[..len])
}
