//! The table of views. It stores them close together, so that reading many accounts touches little memory.
//! The rest of an account's state, about a kilobyte, is in `entry`. Readers never touch it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use arc_swap::{ArcSwap, Guard};

use super::view::View;

/// The number of views in a chunk.
const CHUNK: usize = 256;

/// A flag: a caller has read the view since `take_accessed` last cleared the flag.
const ACCESSED: u8 = 1;

/// A flag: a follower keeps the view current.
const FOLLOWED: u8 = 2;

/// The cell of one account's view.
#[derive(Debug)]
struct ViewCell {
    view: ArcSwap<View>,
    /// Next to the view, because every read needs both.
    flags: AtomicU8,
}

/// A handle to one account's view.
#[derive(Debug, Clone)]
pub(crate) struct ViewHandle {
    chunk: Arc<[ViewCell; CHUNK]>,
    cell: u8,
}

/// Allocates the cells of one provider's accounts, in chunks. A cell is never reused.
#[derive(Debug, Default)]
pub(crate) struct ViewTable {
    chunk: Option<Arc<[ViewCell; CHUNK]>>,
    used: usize,
}

impl ViewTable {
    /// Adds a cell with `view`. All cells of a chunk start with the same view.
    pub(crate) fn add(&mut self, view: &Arc<View>) -> ViewHandle {
        let new_cell = || ViewCell { view: ArcSwap::new(Arc::clone(view)), flags: AtomicU8::new(0) };
        let chunk = self.chunk.get_or_insert_with(|| Arc::new(std::array::from_fn(|_| new_cell())));
        let cell = u8::try_from(self.used).expect("the index of a cell is less than CHUNK");
        let view_handle = ViewHandle { chunk: Arc::clone(chunk), cell };
        self.used += 1;
        if self.used == CHUNK {
            *self = Self::default();
        }
        view_handle
    }
}

impl ViewHandle {
    fn cell(&self) -> &ViewCell {
        &self.chunk[usize::from(self.cell)]
    }

    /// Loads the view. Every read runs this.
    #[inline]
    pub(crate) fn load(&self) -> Guard<Arc<View>> {
        self.mark_accessed();
        self.cell().view.load()
    }

    /// Loads the view as an `Arc` that can be stored.
    pub(crate) fn load_owned(&self) -> Arc<View> {
        self.mark_accessed();
        self.cell().view.load_full()
    }

    /// Loads the view without marking it as accessed.
    pub(crate) fn load_untracked(&self) -> Guard<Arc<View>> {
        self.cell().view.load()
    }

    pub(crate) fn store(&self, view: Arc<View>) {
        self.cell().view.store(view);
    }

    /// Marks the view as read by a caller.
    #[inline]
    pub(crate) fn mark_accessed(&self) {
        let flags = &self.cell().flags;
        // Write only if the flag is not set, so that readers on many cores do not contend for the cache line.
        if flags.load(Ordering::Relaxed) & ACCESSED == 0 {
            flags.fetch_or(ACCESSED, Ordering::Relaxed);
        }
    }

    /// Whether a caller has read the view since the previous call of `take_accessed`.
    pub(crate) fn take_accessed(&self) -> bool {
        self.cell().flags.fetch_and(!ACCESSED, Ordering::Relaxed) & ACCESSED != 0
    }

    /// Whether a follower keeps the view current.
    #[inline]
    pub(crate) fn is_followed(&self) -> bool {
        self.cell().flags.load(Ordering::Relaxed) & FOLLOWED != 0
    }

    pub(crate) fn set_followed(&self, followed: bool) {
        let flags = &self.cell().flags;
        if followed {
            flags.fetch_or(FOLLOWED, Ordering::Relaxed);
        } else {
            flags.fetch_and(!FOLLOWED, Ordering::Relaxed);
        }
    }
}
