//! The genes of one count, split off from the others of a row: eight at a time where the processor has AVX2.
//!
//! A mask of the eight that have the count looks up how to move these together, and the others; both are stored whole, and
//! the next eight overwrite what was too much. In scalar code this took longer than to count, so there it is left out.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{
    __m128i, __m256i, _mm_cmpeq_epi16, _mm_loadu_si128, _mm_movemask_epi8, _mm_packs_epi16, _mm_set1_epi16,
    _mm_setzero_si128, _mm_shuffle_epi8, _mm_storeu_si128, _mm256_loadu_si256, _mm256_permutevar8x32_epi32,
    _mm256_storeu_si256,
};

/// Elements that are split together.
const LANES: usize = 8;

/// Whether genes can be split off here.
pub(super) fn is_fast() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("avx2");
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Moves the genes of `count` to `equal`; the others stay, in their order. `genes` has one for each of `counts`.
pub(super) fn split_off(count: u16, genes: &mut Vec<u32>, counts: &mut Vec<u16>, equal: &mut Vec<u32>) {
    equal.resize(genes.len() + LANES, 0);
    let (mut n_equal, mut n_others, mut begin) = (0, 0, 0);
    #[cfg(target_arch = "x86_64")]
    if is_fast() {
        // SAFETY: the processor has AVX2.
        (n_equal, n_others) = unsafe { split_eights(count, genes, counts, equal) };
        begin = genes.len() / LANES * LANES;
    }
    for at in begin..genes.len() {
        let (gene, found) = (genes[at], counts[at]);
        if found == count {
            equal[n_equal] = gene;
            n_equal += 1;
        } else {
            (genes[n_others], counts[n_others]) = (gene, found);
            n_others += 1;
        }
    }
    equal.truncate(n_equal);
    genes.truncate(n_others);
    counts.truncate(n_others);
}

/// All whole eights; gives how many went to `equal`, and how many stayed.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn split_eights(count: u16, genes: &mut [u32], counts: &mut [u16], equal: &mut [u32]) -> (usize, usize) {
    let wanted = _mm_set1_epi16(count as i16);
    let (mut n_equal, mut n_others) = (0, 0);
    for at in (0..genes.len() / LANES * LANES).step_by(LANES) {
        let (eight_genes, eight_counts) = (&genes[at..at + LANES], &counts[at..at + LANES]);
        // SAFETY: both slices have eight elements: 32 and 16 bytes, of any alignment.
        let (g, c) = unsafe {
            (
                _mm256_loadu_si256(eight_genes.as_ptr().cast::<__m256i>()),
                _mm_loadu_si128(eight_counts.as_ptr().cast::<__m128i>()),
            )
        };
        let is_equal = _mm_packs_epi16(_mm_cmpeq_epi16(c, wanted), _mm_setzero_si128());
        let mask = (_mm_movemask_epi8(is_equal) & 0xff) as usize;
        let (to_equal, to_others) = (&WORDS[mask], &WORDS[mask ^ 0xff]);
        let shuffle = &BYTES[mask ^ 0xff];
        let out = &mut equal[n_equal..n_equal + LANES];
        // Not more than `at` stayed, so that only what was read is overwritten.
        let (kept_genes, kept_counts) =
            (&mut genes[n_others..n_others + LANES], &mut counts[n_others..n_others + LANES]);
        // SAFETY: as above: each slice and each entry of the tables has eight elements of its type, 16 bytes in BYTES.
        unsafe {
            let to_equal = _mm256_loadu_si256(to_equal.as_ptr().cast::<__m256i>());
            let to_others = _mm256_loadu_si256(to_others.as_ptr().cast::<__m256i>());
            let shuffle = _mm_loadu_si128(shuffle.as_ptr().cast::<__m128i>());
            _mm256_storeu_si256(out.as_mut_ptr().cast::<__m256i>(), _mm256_permutevar8x32_epi32(g, to_equal));
            _mm256_storeu_si256(kept_genes.as_mut_ptr().cast::<__m256i>(), _mm256_permutevar8x32_epi32(g, to_others));
            _mm_storeu_si128(kept_counts.as_mut_ptr().cast::<__m128i>(), _mm_shuffle_epi8(c, shuffle));
        }
        let n = mask.count_ones() as usize;
        n_equal += n;
        n_others += LANES - n;
    }
    (n_equal, n_others)
}

/// For each mask, the places of its bits, then anything.
#[cfg(target_arch = "x86_64")]
static WORDS: [[u32; LANES]; 256] = {
    let mut table = [[0; LANES]; 256];
    let mut mask = 0;
    while mask < 256 {
        let (mut at, mut bit) = (0, 0);
        while bit < LANES {
            if mask >> bit & 1 == 1 {
                table[mask][at] = bit as u32;
                at += 1;
            }
            bit += 1;
        }
        mask += 1;
    }
    table
};

/// The same in bytes, of elements of two.
#[cfg(target_arch = "x86_64")]
static BYTES: [[u8; 2 * LANES]; 256] = {
    let mut table = [[0; 2 * LANES]; 256];
    let mut mask = 0;
    while mask < 256 {
        let mut at = 0;
        while at < LANES {
            let place = WORDS[mask][at] as u8;
            table[mask][2 * at] = 2 * place;
            table[mask][2 * at + 1] = 2 * place + 1;
            at += 1;
        }
        mask += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_genes_of_a_count_are_split_off(
            counts in proptest::collection::vec(prop_oneof![1u16..4, Just(257u16), Just(u16::MAX)], 0..70),
            count in 1u16..4,
        ) {
            let genes: Vec<u32> = (0..counts.len() as u32).map(|at| 3 * at + 7).collect();
            let pairs = || genes.iter().copied().zip(counts.iter().copied());
            let (mut others, mut their_counts, mut equal) = (genes.clone(), counts.clone(), vec![1, 2, 3]);
            split_off(count, &mut others, &mut their_counts, &mut equal);
            prop_assert_eq!(equal, pairs().filter(|pair| pair.1 == count).map(|pair| pair.0).collect::<Vec<_>>());
            let wanted: Vec<(u32, u16)> = pairs().filter(|pair| pair.1 != count).collect();
            prop_assert_eq!(others.into_iter().zip(their_counts).collect::<Vec<_>>(), wanted);
        }
    }
}
