//! An account of the list, as `list` finds it and `text` and `json` show it.

use quota::accounts::Evaluated;

use crate::config::AccountSettings;

/// An account, and whether it is available; the latter only if the store can be read.
#[derive(Debug, Clone)]
pub(super) struct Listed<'a> {
    pub(super) settings: &'a AccountSettings,
    pub(super) evaluated: Option<&'a Evaluated>,
}
