//! Assigns numbers to values, so that a state of the model is small. Equal values have equal numbers.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

/// The number of a value in its [`Pool`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Id(u32);

/// The number of the first value of a pool, which the pool of records uses for "no document".
pub(crate) const FIRST: Id = Id(0);

/// All values that occurred, each once, by their stored form.
#[derive(Debug)]
pub(crate) struct Pool<T>(Mutex<Content<T>>);

#[derive(Debug)]
struct Content<T> {
    numbers: HashMap<Box<[u8]>, Id>,
    values: Vec<Arc<T>>,
}

impl<T> Pool<T> {
    /// Creates a pool whose first value is `first`.
    pub(crate) fn starting_with(first: T, stored: &[u8]) -> Self {
        let numbers = HashMap::from([(stored.into(), FIRST)]);
        Self(Mutex::new(Content { numbers, values: vec![Arc::new(first)] }))
    }

    /// The number of a value with this stored form. `decode` creates the value if it is new.
    pub(crate) fn number(&self, stored: &[u8], decode: impl FnOnce() -> T) -> Id {
        let mut content = self.0.lock();
        if let Some(id) = content.numbers.get(stored) {
            return *id;
        }
        let id = Id(u32::try_from(content.values.len()).expect("memory holds fewer values"));
        content.values.push(Arc::new(decode()));
        content.numbers.insert(stored.into(), id);
        id
    }

    /// The value with this number.
    pub(crate) fn value(&self, id: Id) -> Arc<T> {
        Arc::clone(&self.0.lock().values[id.0 as usize])
    }

    /// The number of values.
    pub(crate) fn len(&self) -> usize {
        self.0.lock().values.len()
    }
}
