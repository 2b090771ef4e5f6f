//! Panics during a simulation. Those of the simulated fetcher are part of the plan; any other one is a fault.

use std::cell::RefCell;
use std::panic;
use std::sync::Once;

thread_local! {
    static UNPLANNED: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// The text in the message of every planned panic.
pub(crate) const PLANNED: &str = "a simulated panic";

/// Records the unplanned panics of this thread from now on. Planned ones are not printed.
pub(crate) fn record() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let is_planned = info.payload_as_str().is_some_and(|text| text.contains(PLANNED));
            if !is_planned {
                UNPLANNED.with_borrow_mut(|panics| panics.push(info.to_string()));
                previous(info);
            }
        }));
    });
    UNPLANNED.with_borrow_mut(Vec::clear);
}

/// The first unplanned panic since `record`.
pub(crate) fn first() -> Option<String> {
    UNPLANNED.with_borrow(|panics| panics.first().cloned())
}
