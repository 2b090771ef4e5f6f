//! Where views stand: close together, so that reading many accounts touches little memory.
//! An account's other state is in `entry`, a kilobyte here and there; a reader never goes there.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use arc_swap::{ArcSwap, Guard};

use super::view::View;

/// How many views stand in one row.
const CHUNK: usize = 256;

/// A caller has read the view since this was last cleared.
const ACCESSED: u8 = 1;

/// A task keeps the view current.
const FOLLOWED: u8 = 2;

/// The place of one account's view.
#[derive(Debug)]
struct ViewCell {
    view: ArcSwap<View>,
    /// Beside the view, because every look reads it.
    flags: AtomicU8,
}

/// A way to one account's view, straight from a handle.
#[derive(Debug, Clone)]
pub(crate) struct ViewHandle {
    chunk: Arc<[ViewCell; CHUNK]>,
    cell: u8,
}

/// The rows of one provider's accounts; a place is given once.
#[derive(Debug, Default)]
pub(crate) struct ViewTable {
    chunk: Option<Arc<[ViewCell; CHUNK]>>,
    used: usize,
}

impl ViewTable {
    /// Gives a place, where for now `view` is seen. All places of a shelf begin with the same view.
    pub(crate) fn add(&mut self, view: &Arc<View>) -> ViewHandle {
        let new_cell = || ViewCell { view: ArcSwap::new(Arc::clone(view)), flags: AtomicU8::new(0) };
        let chunk = self.chunk.get_or_insert_with(|| Arc::new(std::array::from_fn(|_| new_cell())));
        let cell = u8::try_from(self.used).expect("a row has no more places than a byte can name");
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

    /// What is seen at this moment. This is every reader's path.
    #[inline]
    pub(crate) fn load(&self) -> Guard<Arc<View>> {
        self.mark_accessed();
        self.cell().view.load()
    }

    /// The same, to keep.
    pub(crate) fn load_owned(&self) -> Arc<View> {
        self.mark_accessed();
        self.cell().view.load_full()
    }

    /// What is seen, without being counted as interested.
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
        // Written once and then only read, so that readers on many cores do not fight for it.
        if flags.load(Ordering::Relaxed) & ACCESSED == 0 {
            flags.fetch_or(ACCESSED, Ordering::Relaxed);
        }
    }

    /// Whether a caller has read the view since the last call of this.
    pub(crate) fn take_accessed(&self) -> bool {
        self.cell().flags.fetch_and(!ACCESSED, Ordering::Relaxed) & ACCESSED != 0
    }

    /// Whether a task keeps the view current.
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
