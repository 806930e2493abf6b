//! Checks allocations whose size comes from a file: one that fails would abort the process.

use crate::error::{Error, Place, Result};

/// Allocations up to this size are not checked.
const UNTRIED: u64 = 64 << 20;

/// Checks that `bytes` of memory can be allocated.
///
/// # Errors
/// [`Error::OutOfMemory`] at the place that `place` gives.
pub(crate) fn check(bytes: u64, place: impl FnOnce() -> Place) -> Result<()> {
    if bytes <= UNTRIED {
        return Ok(());
    }
    let mut probe: Vec<u8> = Vec::new();
    let granted = usize::try_from(bytes).is_ok_and(|n| probe.try_reserve_exact(n).is_ok());
    // Otherwise the compiler removes the unused allocation.
    std::hint::black_box(&probe);
    if granted { Ok(()) } else { Err(Error::OutOfMemory { place: place(), bytes }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_machine_has_is_refused() {
        let place = || Place::new("f", "X");
        assert!(check(1 << 20, place).is_ok());
        assert!(check((64 << 20) + 1, place).is_ok());
        for bytes in [1 << 60, u64::MAX] {
            assert!(matches!(check(bytes, place), Err(Error::OutOfMemory { bytes: b, .. }) if b == bytes));
        }
    }
}
