//! Threads that share work: scoped ones for the jobs of a window (`jobs`), a parked team for the pieces of a batch (`team`).
//!
//! There are two because they differ in what they cost and what they must survive. A window takes milliseconds or more, so
//! its threads are started for it and end with it: no fork can lose them, and each has scratch memory of its own; it can be
//! interrupted between jobs. A batch takes less time than a thread takes to start, so its helpers wait, parked, for the next
//! one, and a forked process starts its own. No files are known here.

pub(crate) mod jobs;
pub(crate) mod team;
