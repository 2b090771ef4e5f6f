//! The state of the view, and how keys change it.

use std::collections::{BTreeMap, VecDeque};

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use jiff::Timestamp;
use quota::{AccountId, Used};

use super::journal_task::DisplayUpdate;
use crate::hook_failures::HookFailureReport;
use crate::view::account::AccountView;
use quota_journal::JournalEvent;

/// The content of the screen.
#[derive(Debug, Default)]
pub(super) struct State {
    /// All accounts, in the order of the configuration.
    pub(super) views: Vec<AccountView>,
    pub(super) events: BTreeMap<AccountId, Vec<JournalEvent>>,
    pub(super) due: BTreeMap<AccountId, Timestamp>,
    /// The account to which keys apply.
    pub(super) selected: Option<AccountId>,
    pub(super) order: Order,
    pub(super) filter: String,
    pub(super) filtering: bool,
    pub(super) show_help: bool,
    /// The last message, shown until a key is pressed.
    pub(super) status_message: String,
    /// Whether the last message is about a failed refresh.
    pub(super) has_failed: bool,
    /// Unread hook failures, oldest first.
    pub(super) hook_failures: VecDeque<HookFailureReport>,
    /// Read hook failures that may still be in their file.
    pub(super) read_failures: Vec<HookFailureReport>,
    /// Why the process runs without a shared store, or a damaged record.
    pub(super) not_shared: Option<String>,
    /// Why a changed configuration could not be loaded.
    pub(super) config_error: Option<String>,
}

/// The order of the accounts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Order {
    #[default]
    Config,
    Used,
    Name,
}

/// The effect of a key.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum KeyAction {
    Nothing,
    Quit,
    /// Ctrl-C, which is an ordinary key in raw mode.
    Interrupt,
    /// Ctrl-Z.
    Suspend,
    Refresh(Vec<AccountId>),
}

impl State {
    /// The accounts that match the filter, in the selected order.
    pub(super) fn shown(&self) -> Vec<&AccountView> {
        let filter = self.filter.to_lowercase();
        let mut shown: Vec<_> =
            self.views.iter().filter(|view| view.id.as_str().to_lowercase().contains(&filter)).collect();
        match self.order {
            Order::Config => {}
            Order::Used => shown.sort_by_key(|view| std::cmp::Reverse(most_used(view))),
            Order::Name => shown.sort_by_key(|view| view.id.as_str()),
        }
        shown
    }

    /// Applies an update from the journal task.
    pub(super) fn apply(&mut self, update: DisplayUpdate) {
        self.read_failures.retain(|failure| update.hook_failures.contains(failure));
        let unread = update.hook_failures.into_iter().filter(|failure| !self.read_failures.contains(failure));
        self.hook_failures = unread.collect();
        // The account may have been removed from the configuration in the meantime.
        if !self.views.iter().any(|view| view.id == update.account) {
            return;
        }
        match update.due_at {
            Some(due) => drop(self.due.insert(update.account.clone(), due)),
            None => drop(self.due.remove(&update.account)),
        }
        self.events.insert(update.account, update.events);
    }

    /// Shows the outcome of a refresh that a key started. A success does not hide a failure.
    pub(super) fn refreshed(&mut self, account: &AccountId, failure: Option<String>) {
        match failure {
            Some(why) => (self.status_message, self.has_failed) = (format!("{account}: {why}"), true),
            None if self.has_failed => {}
            None => self.status_message = format!("{account} refreshed"),
        }
    }

    /// Removes accounts that are no longer configured.
    pub(super) fn retain(&mut self, is_shown: impl Fn(&AccountId) -> bool) {
        self.events.retain(|id, _| is_shown(id));
        self.due.retain(|id, _| is_shown(id));
        self.selected.take_if(|id| !is_shown(id));
    }

    /// The text of the last line, if any: first the result of a key, then hook failures, then a persistent problem.
    pub(super) fn message(&self, now: Timestamp) -> Option<String> {
        if !self.status_message.is_empty() {
            return Some(self.status_message.clone());
        }
        match (self.hook_failures.front(), self.hook_failures.len()) {
            (Some(failure), 1) => Some(failure.describe(now)),
            (Some(failure), all) => Some(format!("1 of {all}: {}", failure.describe(now))),
            (None, _) => self.config_error.clone().or_else(|| self.not_shared.clone()),
        }
    }

    /// Applies a key, and clears the message of the last line.
    pub(super) fn press(&mut self, key: KeyEvent) -> KeyAction {
        // While the user types a filter, the last line shows it instead of a failure.
        if self.status_message.is_empty() && !self.filtering {
            self.read_failures.extend(self.hook_failures.pop_front());
        }
        self.status_message.clear();
        self.has_failed = false;
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return match key.code {
                KeyCode::Char('c') => KeyAction::Interrupt,
                KeyCode::Char('z') => KeyAction::Suspend,
                _ => KeyAction::Nothing,
            };
        }
        if self.filtering {
            self.typed(key.code);
            return KeyAction::Nothing;
        }
        if self.show_help {
            self.show_help = false;
            return KeyAction::Nothing;
        }
        match key.code {
            KeyCode::Char('q') => return KeyAction::Quit,
            KeyCode::Esc if self.filter.is_empty() => return KeyAction::Quit,
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Char('r') => {
                let selected =
                    self.selected.clone().or_else(|| self.shown().first().map(|view| view.id.clone()));
                return KeyAction::Refresh(selected.into_iter().collect());
            }
            KeyCode::Char('R') => {
                return KeyAction::Refresh(self.shown().iter().map(|view| view.id.clone()).collect());
            }
            KeyCode::Char('s') => {
                self.order = match self.order {
                    Order::Config => Order::Used,
                    Order::Used => Order::Name,
                    Order::Name => Order::Config,
                }
            }
            KeyCode::Char('/') => self.filtering = true,
            KeyCode::Char('?' | 'h') => self.show_help = true,
            KeyCode::Down | KeyCode::Char('j') => self.select(1),
            KeyCode::Up | KeyCode::Char('k') => self.select(-1),
            _ => {}
        }
        KeyAction::Nothing
    }

    fn typed(&mut self, code: KeyCode) {
        match code {
            KeyCode::Char(letter) => self.filter.push(letter),
            KeyCode::Backspace => drop(self.filter.pop()),
            KeyCode::Esc => {
                self.filter.clear();
                self.filtering = false;
            }
            KeyCode::Enter => self.filtering = false,
            _ => {}
        }
    }

    fn select(&mut self, step: isize) {
        let shown = self.shown();
        let at = self.selected.as_ref().and_then(|id| shown.iter().position(|view| view.id == *id));
        let next = match at {
            Some(at) => at.saturating_add_signed(step).min(shown.len().saturating_sub(1)),
            None => 0,
        };
        self.selected = shown.get(next).map(|view| view.id.clone());
    }
}

/// The usage of the fullest window, in basis points.
fn most_used(view: &AccountView) -> u32 {
    let used = |used: Used| used.lower_bound().map_or(0, quota::Percent::basis_points);
    view.windows.iter().map(|window| used(window.used)).max().unwrap_or(0)
}
