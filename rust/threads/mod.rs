//! Threads: scoped ones for the jobs of a window, parked ones for the pieces of a batch.

pub(crate) mod jobs;
pub(crate) mod team;
