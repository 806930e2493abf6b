//! The I/O team: threads that read ranges of files before they are decoded, many at a time.
//!
//! It reads in the order in which it was asked, so many ranges at a time as it is deep, and stops where it holds
//! [`MOST_BYTES`] that nobody has taken yet. Nothing depends on it: a thread that wants a range that is not being read yet
//! reads it. Its threads end when there was nothing to read for a while.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError, Weak};
use std::time::Duration;

use super::reads::Reads;

/// Bytes that were read, or are being read, and were not taken yet; one range alone may have more.
pub(super) const MOST_BYTES: u64 = 64 << 20;
/// How long a thread waits for more to read.
const PATIENCE: Duration = Duration::from_secs(1);

/// How a range of a file comes to the thread that asked for it.
#[derive(Debug)]
pub(super) struct Slot {
    file: Arc<Reads>,
    pub(super) address: u64,
    pub(super) len: usize,
    state: Mutex<SlotState>,
    came: Condvar,
}

#[derive(Debug)]
enum SlotState {
    /// No thread has begun to read it.
    Asked,
    /// A thread of the team is reading it.
    Reading,
    /// It is there, or cannot be had.
    Came(io::Result<Vec<u8>>),
    /// Somebody took it, or nobody wants it any more.
    Gone,
}

/// What became of a range that was asked for.
pub(super) enum Taken {
    /// It is in the buffer; whether it was waited for.
    Here { waited: bool },
    /// It could not be read.
    Failed(io::Error),
    /// No thread has begun to read it, or it was taken before.
    NotRead,
}

impl Slot {
    pub(super) fn new(file: Arc<Reads>, address: u64, len: usize) -> Arc<Self> {
        Arc::new(Self { file, address, len, state: Mutex::new(SlotState::Asked), came: Condvar::new() })
    }

    /// Moves the bytes into `buffer`, whose memory goes back to `team`; waits for them where they are being read.
    pub(super) fn take(&self, buffer: &mut Vec<u8>, team: &Team) -> Taken {
        let mut state = lock(&self.state);
        let waited = matches!(*state, SlotState::Reading);
        while matches!(*state, SlotState::Reading) {
            state = self.came.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        match std::mem::replace(&mut *state, SlotState::Gone) {
            SlotState::Came(Ok(mut bytes)) => {
                std::mem::swap(buffer, &mut bytes);
                drop(state);
                team.shared.give_back(self.len as u64, Some(bytes));
                Taken::Here { waited }
            }
            SlotState::Came(Err(error)) => Taken::Failed(error),
            SlotState::Asked | SlotState::Reading | SlotState::Gone => Taken::NotRead,
        }
    }

    /// Forgets it.
    pub(super) fn drop_bytes(&self, team: &Team) {
        let mut state = lock(&self.state);
        // What is being read just now is noticed by who reads it.
        if let SlotState::Came(Ok(bytes)) = std::mem::replace(&mut *state, SlotState::Gone) {
            drop(state);
            team.shared.give_back(self.len as u64, Some(bytes));
        }
    }

    /// Reads it, unless that is no longer wanted; whether its bytes are held now.
    fn fetch(&self, mut buffer: Vec<u8>) -> bool {
        {
            let mut state = lock(&self.state);
            if !matches!(*state, SlotState::Asked) {
                return false;
            }
            *state = SlotState::Reading;
        }
        // A panic would let those that wait wait for ever.
        let read = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            if buffer.try_reserve_exact(self.len.saturating_sub(buffer.len())).is_err() {
                return Err(io::ErrorKind::OutOfMemory.into());
            }
            buffer.resize(self.len, 0);
            self.file.read_ahead(&mut buffer, self.address).map(|()| buffer)
        }));
        let read = read.unwrap_or_else(|_| Err(io::Error::other("the read panicked")));
        let mut state = lock(&self.state);
        if !matches!(*state, SlotState::Reading) {
            return false;
        }
        let holds = read.is_ok();
        *state = SlotState::Came(read);
        self.came.notify_all();
        holds
    }
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Arc<Slot>>,
    /// Bytes that are held or being read.
    bytes: u64,
    /// Buffers that were used.
    spare: Vec<Vec<u8>>,
    threads: usize,
    idle: usize,
    over: bool,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    work: Condvar,
}

/// So many threads as reads may be in flight, started as they are needed.
#[derive(Debug)]
pub(super) struct Team {
    shared: Arc<Shared>,
    depth: usize,
    process: u32,
}

impl Team {
    fn new(depth: usize) -> Arc<Self> {
        Arc::new(Self { shared: Arc::default(), depth, process: std::process::id() })
    }

    /// The team of this process for `depth` reads at a time: one for all files.
    pub(super) fn of_process(depth: usize) -> Arc<Self> {
        type Teams = (u32, HashMap<usize, Weak<Team>>);
        static TEAMS: Mutex<Option<Teams>> = Mutex::new(None);
        let mut teams = match TEAMS.try_lock() {
            Ok(teams) => teams,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            // Held for a moment by another thread, or by one that a fork left behind.
            Err(TryLockError::WouldBlock) => return Self::new(depth),
        };
        let process = std::process::id();
        let (_, by_depth) = match &mut *teams {
            Some(teams) if teams.0 == process => teams,
            other => {
                // What a fork inherited is not touched: its locks may be held by threads that do not exist here.
                std::mem::forget(other.take());
                other.insert((process, HashMap::new()))
            }
        };
        by_depth.retain(|_, team| team.strong_count() > 0);
        by_depth.get(&depth).and_then(Weak::upgrade).unwrap_or_else(|| {
            let team = Self::new(depth);
            by_depth.insert(depth, Arc::downgrade(&team));
            team
        })
    }

    /// Whether its threads are of this process, and not of the one that this one was forked from.
    pub(super) fn is_of_this_process(&self) -> bool {
        self.process == std::process::id()
    }

    /// Reads these, in this order, after what it was asked for before.
    pub(super) fn ask(&self, slots: impl IntoIterator<Item = Arc<Slot>>) {
        let mut state = lock(&self.shared.state);
        state.queue.extend(slots);
        let wanted = state.queue.len().saturating_sub(state.idle).min(self.depth.saturating_sub(state.threads));
        for _ in 0..wanted {
            let shared = Arc::clone(&self.shared);
            // Where the system gives no more threads, fewer read.
            if std::thread::Builder::new().name("annfeed-io".into()).spawn(move || shared.work()).is_err() {
                break;
            }
            state.threads += 1;
        }
        drop(state);
        self.shared.work.notify_all();
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        if self.is_of_this_process() {
            lock(&self.shared.state).over = true;
            self.shared.work.notify_all();
        }
    }
}

impl Shared {
    /// What a thread of the team does all its life.
    fn work(&self) {
        let mut state = lock(&self.state);
        loop {
            let (mut now, next) = self.next(state);
            let Some(slot) = next else {
                now.threads -= 1;
                return;
            };
            let len = slot.len as u64;
            now.bytes += len;
            let buffer = now.spare.pop().unwrap_or_default();
            drop(now);
            if !slot.fetch(buffer) {
                self.give_back(len, None);
            }
            drop(slot);
            state = lock(&self.state);
        }
    }

    /// The next range, once its bytes may be held; `None` where there was none for a while.
    fn next<'a>(&'a self, mut state: MutexGuard<'a, State>) -> (MutexGuard<'a, State>, Option<Arc<Slot>>) {
        loop {
            if state.over {
                return (state, None);
            }
            let held = state.bytes;
            if state.queue.front().is_some_and(|slot| held == 0 || held + slot.len as u64 <= MOST_BYTES) {
                let next = state.queue.pop_front();
                return (state, next);
            }
            state.idle += 1;
            let (mut later, timeout) = self.work.wait_timeout(state, PATIENCE).unwrap_or_else(PoisonError::into_inner);
            later.idle -= 1;
            if timeout.timed_out() && later.queue.is_empty() {
                return (later, None);
            }
            state = later;
        }
    }

    /// Bytes that are no longer held, and the memory that they were in or that came in exchange.
    fn give_back(&self, bytes: u64, memory: Option<Vec<u8>>) {
        let mut state = lock(&self.state);
        state.bytes -= bytes;
        let held: usize = state.spare.iter().map(Vec::capacity).sum();
        if let Some(memory) =
            memory.filter(|m| m.capacity() > 0 && (held + m.capacity()) as u64 + state.bytes <= MOST_BYTES)
        {
            state.spare.push(memory);
        }
        let is_waited_for = state.idle > 0 && !state.queue.is_empty();
        drop(state);
        if is_waited_for {
            self.work.notify_one();
        }
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
