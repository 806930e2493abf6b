//! `Selection`: the columns of a matrix that are delivered, in their order.

use super::Counted;

/// Marks a column of the matrix that is not wanted in a [`Selection`], and a wanted one that the matrix does not have.
const NONE: u32 = u32::MAX;

/// Which columns are wanted, and in which order; the matrix may lack some of them.
#[derive(Clone, Debug)]
pub(crate) struct Selection {
    order: Vec<u32>,
    /// Of each column of the matrix, where it goes.
    place: Vec<u32>,
    /// Which columns count in the totals of rows; `None` where no totals are wanted.
    counted: Option<Counted>,
}

impl Selection {
    /// A wanted column that the matrix does not have: all zero.
    pub(crate) const MISSING: i64 = -1;

    /// Columns `order` of a matrix of `n_cols`, all distinct and in range or [`Selection::MISSING`], else the first that is not.
    ///
    /// # Errors
    /// The offending column.
    pub(crate) fn new(order: &[i64], n_cols: u64) -> Result<Self, i64> {
        let mut place = vec![NONE; n_cols as usize];
        for (to, &from) in order.iter().enumerate().filter(|(_, from)| **from != Self::MISSING) {
            match usize::try_from(from).ok().and_then(|from| place.get_mut(from)) {
                Some(slot) if *slot == NONE => *slot = to as u32,
                _ => return Err(from),
            }
        }
        Ok(Self { order: order.iter().map(|&c| u32::try_from(c).unwrap_or(NONE)).collect(), place, counted: None })
    }

    /// The same, with totals of rows to be kept beside the columns.
    #[must_use]
    pub(crate) fn with_totals(self, counted: Counted) -> Self {
        Self { counted: Some(counted), ..self }
    }

    /// Which columns count in the totals of rows, where totals are wanted.
    #[must_use]
    pub(crate) fn counted(&self) -> Option<&Counted> {
        self.counted.as_ref()
    }

    /// Columns delivered.
    #[must_use]
    pub(crate) fn width(&self) -> usize {
        self.order.len()
    }

    /// The matrix's columns in delivery order; `None` for those that it does not have.
    #[must_use]
    pub(crate) fn order(&self) -> impl ExactSizeIterator<Item = Option<u32>> + '_ {
        self.order.iter().map(|&column| (column != NONE).then_some(column))
    }

    /// Where a column of the matrix goes, if it is wanted.
    #[inline]
    #[must_use]
    pub(crate) fn place(&self, column: impl Into<u32>) -> Option<u32> {
        self.place.get(column.into() as usize).copied().filter(|&place| place != NONE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selection_refuses_repeats_and_strangers() {
        assert_eq!(Selection::new(&[1, 1], 3).unwrap_err(), 1);
        assert_eq!(Selection::new(&[0, 3], 3).unwrap_err(), 3);
        assert_eq!(Selection::new(&[-2], 3).unwrap_err(), -2);
    }
}
