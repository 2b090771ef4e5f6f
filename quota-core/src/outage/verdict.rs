//! Decides whether a failed store operation means an outage, or a fault that a user must fix.

use std::error::Error;

use crate::file::is_lock_unsupported;
use crate::store::StoreError;

/// The source of a [`StoreError`] if the store did not try the operation because the program has no time left.
///
/// Such an error proves nothing about the store or the document, so it does not begin an outage. A store that limits
/// the total time of a short-lived program returns it: `StoreError::unavailable(WriteState::NotApplied,
/// …).with_source(NoTimeLeft)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no time is left for a use of the store")]
pub struct NoTimeLeft;

/// Whether this failure means an outage.
///
/// The user must fix a rejected read, such as one with a wrong password. A file without locks is an exception: its file
/// system rejects reads and writes, and a process that finds no file there continues in the next folder.
pub(super) fn shows_outage(error: &StoreError, is_write: bool) -> bool {
    match error {
        StoreError::Unavailable { .. } => !is_untried(error),
        StoreError::Rejected { .. } => is_write || lacks_file_locks(error),
        StoreError::Corrupt { .. } => false,
    }
}

/// Whether the store did not try the operation because this process has no time left.
pub(super) fn is_untried(error: &StoreError) -> bool {
    is_caused_by(error, |_: &NoTimeLeft| true)
}

/// Whether the store rejects writes but not reads.
pub(super) fn rejects_only_writes(error: &StoreError) -> bool {
    matches!(error, StoreError::Rejected { .. }) && !lacks_file_locks(error)
}

fn lacks_file_locks(error: &StoreError) -> bool {
    is_caused_by(error, is_lock_unsupported)
}

fn is_caused_by<E: Error + 'static>(error: &StoreError, is_cause: impl FnOnce(&E) -> bool) -> bool {
    let (StoreError::Unavailable { source, .. }
    | StoreError::Rejected { source, .. }
    | StoreError::Corrupt { source, .. }) = error;
    source.as_ref().and_then(|source| source.downcast_ref()).is_some_and(is_cause)
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::store::WriteState;

    #[test]
    fn a_use_that_was_not_tried_shows_no_outage() {
        let late = StoreError::unavailable(WriteState::NotApplied, "it timed out");

        assert!(shows_outage(&late, false));
        assert!(!shows_outage(&late.with_source(NoTimeLeft), true));
    }

    #[test]
    fn a_rejected_read_shows_no_outage_unless_the_file_has_no_locks() {
        let wrong_password = StoreError::rejected("wrong password");
        #[cfg(unix)]
        let no_locks = io::Error::from(rustix::io::Errno::NOLCK);
        #[cfg(not(unix))]
        let no_locks = io::Error::from(io::ErrorKind::Unsupported);
        let without_locks = StoreError::rejected("no locks").with_source(no_locks);

        assert!(!shows_outage(&wrong_password, false) && shows_outage(&wrong_password, true));
        assert!(shows_outage(&without_locks, false));
        assert!(rejects_only_writes(&wrong_password) && !rejects_only_writes(&without_locks));
    }
}
