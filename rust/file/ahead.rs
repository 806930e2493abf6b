//! Ranges of a file that are read ahead of decoding, for one window.
//!
//! A window knows all that it will read before it reads any of it. Where reads are waited for, it asks the I/O team for it,
//! in the order in which it will be decoded; what is in the page cache is left to the thread that decodes it, which would
//! otherwise find it in another core's cache. Who asked for the next window's bytes keeps what [`DataFile::ask`] gave until that window
//! is read.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Instant;

use super::DataFile;
use super::team::{Slot, Taken, Team, lock};
use crate::error::{Place, Result};

/// A larger range is not asked for ahead: it would take all the memory that there is for it.
const MOST_LEN: u64 = 32 << 20;

/// A range of a file: address and bytes.
pub(crate) type Extent = (u64, u64);

/// Ranges that were asked for. Dropped, those that nobody took are forgotten.
#[derive(Debug)]
pub struct Asked {
    /// The rows that they are of.
    rows: Vec<u64>,
    slots: HashMap<Extent, Arc<Slot>>,
    team: Arc<Team>,
}

impl Drop for Asked {
    fn drop(&mut self) {
        // In a forked process a thread that is not there may hold the locks.
        if self.team.is_of_this_process() {
            self.slots.values().for_each(|slot| slot.drop_bytes(&self.team));
        }
    }
}

/// Windows whose bytes were asked for and that were not read yet.
pub(super) type Waiting = Vec<Weak<Asked>>;

/// A file as one window reads it: what was asked for is taken, all else is read here and now.
#[derive(Debug)]
pub(crate) struct Fetched<'a> {
    file: &'a DataFile,
    /// Asked for with the window before, and for this one.
    asked: [Option<Arc<Asked>>; 2],
}

impl std::ops::Deref for Fetched<'_> {
    type Target = DataFile;

    fn deref(&self) -> &DataFile {
        self.file
    }
}

impl DataFile {
    /// This file as a window reads it whose `ranges` are wanted in this order, `before` being what was asked for already.
    pub(crate) fn fetched(&self, before: Option<Arc<Asked>>, ranges: impl FnOnce() -> Vec<Extent>) -> Fetched<'_> {
        let is_slow = self.depth > 0 && self.reads.pace.judge();
        let now = is_slow.then(|| self.ask_for(&[], &ranges(), before.as_deref())).flatten();
        Fetched { file: self, asked: [before, now] }
    }

    /// Asks for the `ranges` of a window of `rows` that will be read later; `None` where reads are not waited for.
    pub(crate) fn ask(&self, rows: &[u64], ranges: impl FnOnce() -> Vec<Extent>) -> Option<Arc<Asked>> {
        let asked = self.waits().then(|| self.ask_for(rows, &ranges(), None)).flatten()?;
        let mut waiting = lock(&self.waiting);
        waiting.retain(|asked| asked.strong_count() > 0);
        waiting.push(Arc::downgrade(&asked));
        Some(asked)
    }

    /// What was asked for with these rows.
    pub(crate) fn asked_for(&self, rows: &[u64]) -> Option<Arc<Asked>> {
        let mut waiting = lock(&self.waiting);
        let at = waiting.iter().position(|asked| asked.upgrade().is_some_and(|asked| asked.rows == rows))?;
        waiting.remove(at).upgrade()
    }

    fn ask_for(&self, rows: &[u64], ranges: &[Extent], before: Option<&Asked>) -> Option<Arc<Asked>> {
        let mut slots = HashMap::new();
        let mut in_order = Vec::new();
        for &(address, len) in ranges {
            let is_known = slots.contains_key(&(address, len)) || before.is_some_and(|b| b.has((address, len)));
            if is_known || len == 0 || len > MOST_LEN || self.reads.is_at_hand(address, len as usize) == Some(true) {
                continue;
            }
            let slot = Slot::new(Arc::clone(&self.reads), address, len as usize);
            slots.insert((address, len), Arc::clone(&slot));
            in_order.push(slot);
        }
        if slots.is_empty() {
            return None;
        }
        let team = self.team.get_or_init(|| Team::of_process(self.depth));
        team.ask(in_order);
        Some(Arc::new(Asked { rows: rows.to_vec(), slots, team: Arc::clone(team) }))
    }
}

impl Asked {
    fn has(&self, range: Extent) -> bool {
        self.slots.contains_key(&range)
    }
}

impl Fetched<'_> {
    /// Fills `buffer` with `len` bytes from `address` on.
    ///
    /// # Errors
    /// [`crate::error::Error::Io`], naming `place`.
    pub(crate) fn read(&self, buffer: &mut Vec<u8>, address: u64, len: u64, place: &Place) -> Result<()> {
        if self.take(buffer, address, len, place)? {
            return Ok(());
        }
        buffer.resize(len as usize, 0);
        self.file.read_at(buffer, address, place)
    }

    /// As `read`, where the bytes have a place already.
    ///
    /// # Errors
    /// As `read`.
    pub(crate) fn read_into(&self, out: &mut [u8], address: u64, place: &Place) -> Result<()> {
        let mut bytes = Vec::new();
        if self.take(&mut bytes, address, out.len() as u64, place)? {
            out.copy_from_slice(&bytes);
            return Ok(());
        }
        self.file.read_at(out, address, place)
    }

    /// Takes what was asked for and came; false where there is nothing to take.
    fn take(&self, buffer: &mut Vec<u8>, address: u64, len: u64, place: &Place) -> Result<bool> {
        for asked in self.asked.iter().flatten() {
            let Some(slot) = asked.slots.get(&(address, len)) else { continue };
            let begin = Instant::now();
            match slot.take(buffer, &asked.team) {
                Taken::Here { waited } => {
                    if waited {
                        self.file.reads.count_wait(begin.elapsed());
                    }
                    return Ok(true);
                }
                Taken::Failed(source) => return Err(DataFile::failed(len as usize, address, place, source)),
                Taken::NotRead => {}
            }
        }
        Ok(false)
    }
}
