//! Reads of one source: whole ranges, counted, by the thread that decodes them or ahead of it.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::pace::Pace;
use super::source::ByteSource;

/// What was read so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ReadStats {
    /// Bytes read.
    pub(crate) bytes: u64,
    /// Those of them that were read ahead of decoding.
    pub(crate) ahead: u64,
    /// How often a thread that decodes waited for bytes.
    pub(crate) waits: u64,
    /// How long, in all threads together.
    pub(crate) waited: Duration,
}

/// A source, and what was read from it.
#[derive(Debug)]
pub(super) struct Reads {
    pub(super) source: Box<dyn ByteSource>,
    pub(super) pace: Pace,
    bytes: AtomicU64,
    ahead: AtomicU64,
    waits: AtomicU64,
    waited_ns: AtomicU64,
}

impl Reads {
    pub(super) fn new(source: Box<dyn ByteSource>) -> Self {
        let none = AtomicU64::default;
        Self { source, pace: Pace::default(), bytes: none(), ahead: none(), waits: none(), waited_ns: none() }
    }

    pub(super) fn stats(&self) -> ReadStats {
        let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
        ReadStats {
            bytes: count(&self.bytes),
            ahead: count(&self.ahead),
            waits: count(&self.waits),
            waited: Duration::from_nanos(count(&self.waited_ns)),
        }
    }

    /// Counts from here on: what was looked up to open a file is not its content.
    pub(super) fn count_anew(&self) {
        for count in [&self.bytes, &self.ahead, &self.waits, &self.waited_ns] {
            count.store(0, Ordering::Relaxed);
        }
    }

    /// Fills `buffer` here and now, where a thread that decodes wants it.
    pub(super) fn read_here(&self, buffer: &mut [u8], address: u64) -> io::Result<()> {
        let at_hand = self.source.read_at_hand(buffer, address);
        let read = at_hand.unwrap_or(0).min(buffer.len());
        if read < buffer.len() || at_hand.is_none() {
            let begin = Instant::now();
            self.fill(&mut buffer[read..], address + read as u64)?;
            let taken = begin.elapsed();
            if at_hand.is_none() {
                self.pace.timed(taken, buffer.len());
            }
            if at_hand.is_some() || self.pace.is_slow() {
                self.count_wait(taken);
            }
        }
        if at_hand.is_some() {
            self.pace.told(read == buffer.len());
        }
        self.bytes.fetch_add(buffer.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Fills `buffer` in a thread of the team.
    pub(super) fn read_ahead(&self, buffer: &mut [u8], address: u64) -> io::Result<()> {
        let begin = Instant::now();
        self.fill(buffer, address)?;
        if !self.tells(address) {
            self.pace.timed(begin.elapsed(), buffer.len());
        }
        self.bytes.fetch_add(buffer.len() as u64, Ordering::Relaxed);
        self.ahead.fetch_add(buffer.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Whether the bytes from `address` to `address + len` are at hand, by the last of them: the system reads forward. `None`
    /// where it cannot tell.
    pub(super) fn is_at_hand(&self, address: u64, len: usize) -> Option<bool> {
        let last = address + (len as u64).saturating_sub(1);
        let found = self.source.read_at_hand(&mut [0], last)? == 1;
        self.pace.told(found);
        Some(found)
    }

    fn tells(&self, address: u64) -> bool {
        self.source.read_at_hand(&mut [], address).is_some()
    }

    /// Counts that a thread that decodes waited.
    pub(super) fn count_wait(&self, waited: Duration) {
        self.waits.fetch_add(1, Ordering::Relaxed);
        self.waited_ns.fetch_add(waited.as_nanos() as u64, Ordering::Relaxed);
    }

    /// Reads until `buffer` is full: a read may be short, or interrupted by a signal.
    fn fill(&self, mut buffer: &mut [u8], mut address: u64) -> io::Result<()> {
        while !buffer.is_empty() {
            match self.source.read(buffer, address) {
                Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "failed to fill whole buffer")),
                Ok(read) => {
                    buffer = &mut buffer[read..];
                    address += read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
