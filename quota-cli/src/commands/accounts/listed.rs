//! An account of the list, as `list` finds it and `text` and `json` show it.

use crate::config::AccountSettings;
use crate::router::SeenAccount;

/// An account, and how it stands; the latter only if the store says.
#[derive(Debug, Clone)]
pub(super) struct Listed<'a> {
    pub(super) settings: &'a AccountSettings,
    pub(super) seen: Option<&'a SeenAccount>,
}
