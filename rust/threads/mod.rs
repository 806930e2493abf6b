//! Threads that share work: scoped ones for the jobs of a window (`jobs`), a parked team for the pieces of a batch (`team`).
//!
//! A window takes milliseconds or more, so its threads are started for it and end with it: they need no care at a fork,
//! each has its own scratch memory, and they can be interrupted between jobs. A batch takes less time than starting a
//! thread, so its helpers wait, parked, for the next one; a forked process starts its own.

pub(crate) mod jobs;
pub(crate) mod team;
