//! Items put into the order of their keys: rows for a shuffle, elements to turn columns into rows.

/// The numbers of the items by key, equal keys in the order of the items. Keys are below `n_keys`.
///
/// # Panics
/// Where a key is not.
#[must_use]
pub(crate) fn by_key(keys: &[i64], n_keys: usize) -> Vec<i64> {
    let mut places = vec![0_usize; n_keys + 1];
    for &key in keys {
        places[key as usize + 1] += 1;
    }
    for key in 0..n_keys {
        places[key + 1] += places[key];
    }
    let mut order = vec![0; keys.len()];
    for (item, &key) in keys.iter().enumerate() {
        let place = &mut places[key as usize];
        order[*place] = item as i64;
        *place += 1;
    }
    order
}

/// The items at `order`, one after the other; item i is the bytes `starts[i]..starts[i + 1]`.
///
/// # Panics
/// Where an item is out of range.
#[must_use]
pub(crate) fn gather(bytes: &[u8], starts: &[i64], order: &[i64]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    for &item in order {
        let item = item as usize;
        out.extend_from_slice(&bytes[starts[item] as usize..starts[item + 1] as usize]);
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn as_a_stable_sort_does(keys in prop::collection::vec(0_i64..9, 0..200)) {
            let mut expected: Vec<i64> = (0..keys.len() as i64).collect();
            expected.sort_by_key(|&item| keys[item as usize]);
            prop_assert_eq!(by_key(&keys, 9), expected);
        }

        #[test]
        fn items_come_whole(items in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9), 0..20), seed: u64) {
            let mut starts = vec![0_i64];
            starts.extend(items.iter().scan(0, |end, item| { *end += item.len() as i64; Some(*end) }));
            let keys: Vec<i64> = (0..items.len() as u64).map(|i| (i.wrapping_mul(seed | 1) % 7) as i64).collect();
            let order = by_key(&keys, 7);
            let expected: Vec<u8> = order.iter().flat_map(|&item| items[item as usize].clone()).collect();
            prop_assert_eq!(gather(&items.concat(), &starts, &order), expected);
        }
    }
}
