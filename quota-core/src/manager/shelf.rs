//! Where views stand: close together, so that reading many accounts touches little memory.
//! An account's other state is in `slot`, a kilobyte here and there; a reader never goes there.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use arc_swap::{ArcSwap, Guard};

use super::view::View;

/// How many views stand in one row.
const ROW: usize = 256;

/// Somebody has looked since this was last cleared.
const LOOKED_AT: u8 = 1;

/// A task keeps the view current.
const FOLLOWED: u8 = 2;

/// The place of one account's view.
#[derive(Debug)]
struct Place {
    view: ArcSwap<View>,
    /// Beside the view, because every look reads it.
    marks: AtomicU8,
}

/// A way to one account's view, straight from a handle.
#[derive(Debug, Clone)]
pub(crate) struct Sight {
    row: Arc<[Place; ROW]>,
    place: u8,
}

/// The rows of one provider's accounts; a place is given once.
#[derive(Debug, Default)]
pub(crate) struct Shelf {
    row: Option<Arc<[Place; ROW]>>,
    given: usize,
}

impl Shelf {
    /// Gives a place, where for now `view` is seen. All places of a shelf begin with the same view.
    pub(crate) fn place(&mut self, view: &Arc<View>) -> Sight {
        let begin = || Place { view: ArcSwap::new(Arc::clone(view)), marks: AtomicU8::new(0) };
        let row = self.row.get_or_insert_with(|| Arc::new(std::array::from_fn(|_| begin())));
        let place = u8::try_from(self.given).expect("a row has no more places than a byte can name");
        let sight = Sight { row: Arc::clone(row), place };
        self.given += 1;
        if self.given == ROW {
            *self = Self::default();
        }
        sight
    }
}

impl Sight {
    fn place(&self) -> &Place {
        &self.row[usize::from(self.place)]
    }

    /// What is seen at this moment. This is every reader's path.
    #[inline]
    pub(crate) fn look(&self) -> Guard<Arc<View>> {
        self.note_look();
        self.place().view.load()
    }

    /// The same, to keep.
    pub(crate) fn take(&self) -> Arc<View> {
        self.note_look();
        self.place().view.load_full()
    }

    /// What is seen, without being counted as interested.
    pub(crate) fn glance(&self) -> Guard<Arc<View>> {
        self.place().view.load()
    }

    pub(crate) fn show(&self, view: Arc<View>) {
        self.place().view.store(view);
    }

    /// Notes that somebody is interested.
    #[inline]
    pub(crate) fn note_look(&self) {
        let marks = &self.place().marks;
        // Written once and then only read, so that readers on many cores do not fight for it.
        if marks.load(Ordering::Relaxed) & LOOKED_AT == 0 {
            marks.fetch_or(LOOKED_AT, Ordering::Relaxed);
        }
    }

    /// Whether anybody has been interested since this was asked last.
    pub(crate) fn take_look(&self) -> bool {
        self.place().marks.fetch_and(!LOOKED_AT, Ordering::Relaxed) & LOOKED_AT != 0
    }

    /// Whether a task keeps the view current.
    #[inline]
    pub(crate) fn is_followed(&self) -> bool {
        self.place().marks.load(Ordering::Relaxed) & FOLLOWED != 0
    }

    pub(crate) fn set_followed(&self, followed: bool) {
        let marks = &self.place().marks;
        if followed {
            marks.fetch_or(FOLLOWED, Ordering::Relaxed);
        } else {
            marks.fetch_and(!FOLLOWED, Ordering::Relaxed);
        }
    }
}
