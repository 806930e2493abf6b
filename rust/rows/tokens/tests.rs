//! Tokens of rows beside plain code; draws are compared with another implementation in `tests/batches/test_tokens.py`.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::dtype::Kind;

fn spec(length: usize) -> TokenSpec {
    TokenSpec {
        length,
        choose: Choose::Top,
        order: Arrange::Value,
        values: TokenValues::Counts,
        target_sum: 10.0,
        bins: 4,
        scale: None,
        ids: None,
        kept: None,
        zeros: 0,
        pad_id: -1,
        pad_value: -2.0,
        cls_id: None,
    }
}

fn rows_of(cells: &[Vec<f32>], is_sparse: bool) -> DecodedRows {
    let n_cols = cells.first().map_or(0, Vec::len);
    let bytes: Vec<u8> = cells.concat().iter().flat_map(|x| x.to_le_bytes()).collect();
    let dense = RowGroup::from_rows(Kind::F32, &bytes, cells.len(), n_cols, None);
    let group = if is_sparse {
        let stored = |cell: &Vec<f32>| (0u16..).zip(cell.clone()).filter(|(_, x)| *x != 0.0).collect::<Vec<_>>();
        let all: Vec<Vec<(u16, f32)>> = cells.iter().map(stored).collect();
        let offsets = std::iter::once(0).chain(all.iter().scan(0, |sum, row| {
            *sum += row.len();
            Some(*sum)
        }));
        let mut values = Values::with_capacity(0);
        let numbers: Vec<u8> = all.concat().iter().flat_map(|(_, x)| x.to_le_bytes()).collect();
        values.append(Kind::F32, &numbers);
        let columns = crate::rows::Columns::U16(all.concat().iter().map(|(c, _)| *c).collect());
        RowGroup::from_stored(offsets.collect(), columns, values, Kind::F32, None).unwrap()
    } else {
        dense
    };
    let mut rows = DecodedRows::new(n_cols);
    rows.push_group(Arc::new(group));
    rows
}

type Made = (Vec<i64>, Vec<i64>, Vec<f32>, Vec<u8>);

fn made(rows: &DecodedRows, spec: &TokenSpec, threads: usize) -> Result<Made> {
    let positions: Vec<i64> = (0..rows.n_rows() as i64).collect();
    let wanted = TokenRows { positions: &positions, rows: &positions, epoch: 7 };
    let counts = rows.expressed(&positions, spec, threads)?;
    let width = spec.longest(&counts, rows.n_cols());
    let n = width * positions.len();
    let (mut genes, mut values, mut mask) = (vec![0; n], vec![0.0; n], vec![9; n]);
    let out = TokensOut { genes: &mut genes, values: &mut values, mask: &mut mask, width };
    rows.tokens(wanted, &counts, spec, out, threads)?;
    Ok((counts, genes, values, mask))
}

#[test]
fn a_cell_is_cut_padded_and_marked() {
    let rows = rows_of(&[vec![0.0, 3.0, 1.0, 3.0], vec![5.0, 0.0, 0.0, 0.0], vec![0.0; 4]], true);
    let cut = TokenSpec { cls_id: Some(9), ..spec(3) };
    let (counts, genes, values, mask) = made(&rows, &cut, 1).unwrap();
    assert_eq!(counts, [3, 1, 0]);
    assert_eq!(genes, [9, 1, 3, 9, 0, -1, 9, -1, -1]);
    assert_eq!(values, [0.0, 3.0, 3.0, 0.0, 5.0, -2.0, 0.0, -2.0, -2.0]);
    assert_eq!(mask, [1, 1, 1, 1, 1, 0, 1, 0, 0]);
}

#[test]
fn vocabulary_scale_and_totals() {
    let rows = rows_of(&[vec![2.0, 3.0, 1.0, 4.0]], false);
    let some = TokenSpec {
        values: TokenValues::Normalized,
        scale: Some(vec![1.0, 1.0, 0.125, 4.0]),
        ids: Some(vec![10, 20, 30, 40]),
        kept: Some(Kept::new(&[true, false, true, true])),
        ..spec(8)
    };
    let (counts, genes, values, _) = made(&rows, &some, 1).unwrap();
    assert_eq!((counts, genes, values), (vec![3], vec![30, 10, 40], vec![8.0, 2.0, 1.0]));
}

#[test]
fn what_is_no_expression_is_named() {
    for is_sparse in [true, false] {
        let error = made(&rows_of(&[vec![1.0; 3], vec![0.0, 1.0, -0.5]], is_sparse), &spec(2), 1).unwrap_err();
        assert!(
            matches!(error, Error::NotExpression { at: 1, column: Some(2), ref value } if value == "-0.5"),
            "{error}"
        );
    }
}

fn any_spec() -> impl Strategy<Value = TokenSpec> {
    let choose = prop_oneof![Just(Choose::Top), Just(Choose::Random), Just(Choose::Weighted), Just(Choose::First)];
    let order = prop_oneof![Just(Arrange::Value), Just(Arrange::Gene), Just(Arrange::Random)];
    let values = prop_oneof![
        Just(TokenValues::Counts),
        Just(TokenValues::Normalized),
        Just(TokenValues::Log1p),
        Just(TokenValues::Binned),
        Just(TokenValues::Rank)
    ];
    let kept = proptest::option::of(proptest::collection::vec(any::<bool>(), 20));
    (choose, order, values, kept, 0usize..4, 6usize..30, any::<bool>()).prop_map(
        |(choose, order, values, kept, zeros, length, scaled)| TokenSpec {
            choose,
            order,
            values,
            zeros,
            kept: kept.map(|marks| Kept::new(&marks)),
            scale: scaled.then(|| (1..=20).map(|i| f64::from(i) / 3.0).collect()),
            ..spec(length)
        },
    )
}

proptest! {
    #[test]
    fn tokens_are_genes_of_the_cell(
        cells in proptest::collection::vec(proptest::collection::vec(prop_oneof![Just(0.0f32), (1u16..400).prop_map(f32::from)], 20), 1..70),
        spec in any_spec(),
    ) {
        let (sparse, dense) = (rows_of(&cells, true), rows_of(&cells, false));
        let found = made(&sparse, &spec, 1).unwrap();
        prop_assert_eq!(&found, &made(&dense, &spec, 2).unwrap());
        let (counts, genes, values, mask) = found;
        let width = genes.len() / cells.len();
        for (i, cell) in cells.iter().enumerate() {
            let span = i * width..(i + 1) * width;
            let real = mask[span.clone()].iter().map(|m| usize::from(*m)).sum::<usize>();
            let (genes, values) = (&genes[span.clone()][..real], &values[span.clone()][..real]);
            let is_kept = |at: usize| spec.kept.as_ref().is_none_or(|kept| kept.has(at as u32));
            let expressed: Vec<usize> = (0..20).filter(|&at| cell[at] > 0.0 && is_kept(at)).collect();
            prop_assert_eq!(counts[i] as usize, expressed.len());
            let mut distinct = genes.to_vec();
            distinct.sort_unstable();
            distinct.dedup();
            prop_assert_eq!(distinct.len(), real);
            let n_zeros = genes.iter().filter(|&&gene| cell[gene as usize] == 0.0).count();
            prop_assert!(genes.iter().all(|&gene| is_kept(gene as usize)));
            prop_assert_eq!(n_zeros, spec.zeros.min((0..20).filter(|&at| is_kept(at)).count() - expressed.len()));
            prop_assert_eq!(real - n_zeros, expressed.len().min(spec.length - n_zeros));
            prop_assert!(genes.iter().zip(values).all(|(&gene, &x)| (x == 0.0) == (cell[gene as usize] == 0.0)));
            if spec.order == Arrange::Gene {
                prop_assert!(genes.is_sorted());
            }
        }
    }
}
