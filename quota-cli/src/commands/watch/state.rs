//! What the view shows and how: chosen by keys, without any terminal.

use std::collections::BTreeMap;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use jiff::Timestamp;
use quota::{AccountId, Used};

use super::scribe::Written;
use crate::view::account::AccountView;
use quota_journal::JournalEvent;

/// What is on the screen.
#[derive(Debug, Default)]
pub(super) struct State {
    /// All accounts, in the order of the configuration.
    pub(super) views: Vec<AccountView>,
    pub(super) events: BTreeMap<AccountId, Vec<JournalEvent>>,
    pub(super) due: BTreeMap<AccountId, Timestamp>,
    /// The account that keys are about.
    pub(super) selected: Option<AccountId>,
    pub(super) order: Order,
    pub(super) filter: String,
    pub(super) is_typing: bool,
    pub(super) is_helping: bool,
    /// What was last to be said, until a key is pressed.
    pub(super) told: String,
    /// Whether that is a refresh that failed.
    pub(super) has_failed: bool,
    /// Why nothing is shared with other processes, as long as that is so.
    pub(super) not_shared: Option<String>,
    /// Why the configuration that is there is not the one that is shown, as long as that is so.
    pub(super) not_read: Option<String>,
}

/// In which order accounts are shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Order {
    #[default]
    Configured,
    Used,
    Name,
}

/// What a key asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Act {
    Nothing,
    Leave,
    /// Ctrl-C, which is a key like others while keys come as they are pressed.
    Interrupt,
    /// Ctrl-Z, likewise.
    Pause,
    Refresh(Vec<AccountId>),
}

impl State {
    /// The accounts that are shown, in their order.
    pub(super) fn shown(&self) -> Vec<&AccountView> {
        let filter = self.filter.to_lowercase();
        let mut shown: Vec<_> =
            self.views.iter().filter(|view| view.id.as_str().to_lowercase().contains(&filter)).collect();
        match self.order {
            Order::Configured => {}
            Order::Used => shown.sort_by_key(|view| std::cmp::Reverse(most_used(view))),
            Order::Name => shown.sort_by_key(|view| view.id.as_str()),
        }
        shown
    }

    /// Takes in what the scribe has written.
    pub(super) fn write(&mut self, written: Written) {
        if let Some(trouble) = written.troubles.into_iter().next_back() {
            self.told = trouble;
        }
        match written.due_at {
            Some(due) => drop(self.due.insert(written.account.clone(), due)),
            None => drop(self.due.remove(&written.account)),
        }
        self.events.insert(written.account, written.events);
    }

    /// Takes in what came of a refresh that was asked for. A success does not hide a failure.
    pub(super) fn refreshed(&mut self, account: &AccountId, why_not: Option<String>) {
        match why_not {
            Some(why) => (self.told, self.has_failed) = (format!("{account}: {why}"), true),
            None if self.has_failed => {}
            None => self.told = format!("{account} refreshed"),
        }
    }

    /// Forgets accounts that are not shown any more.
    pub(super) fn retain(&mut self, is_shown: impl Fn(&AccountId) -> bool) {
        self.events.retain(|id, _| is_shown(id));
        self.due.retain(|id, _| is_shown(id));
        self.selected.take_if(|id| !is_shown(id));
    }

    /// What there is to say in the last line, if anything: first what a key has brought about, then what is wrong for now.
    pub(super) fn message(&self) -> Option<&str> {
        let standing = self.not_read.as_deref().or(self.not_shared.as_deref());
        Some(&*self.told).filter(|told| !told.is_empty()).or(standing)
    }

    /// Takes a key in. Whoever presses one has read what was told last.
    pub(super) fn press(&mut self, key: KeyEvent) -> Act {
        self.told.clear();
        self.has_failed = false;
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return match key.code {
                KeyCode::Char('c') => Act::Interrupt,
                KeyCode::Char('z') => Act::Pause,
                _ => Act::Nothing,
            };
        }
        if self.is_typing {
            self.typed(key.code);
            return Act::Nothing;
        }
        if self.is_helping {
            self.is_helping = false;
            return Act::Nothing;
        }
        match key.code {
            KeyCode::Char('q') => return Act::Leave,
            KeyCode::Esc if self.filter.is_empty() => return Act::Leave,
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Char('r') => {
                let selected =
                    self.selected.clone().or_else(|| self.shown().first().map(|view| view.id.clone()));
                return Act::Refresh(selected.into_iter().collect());
            }
            KeyCode::Char('R') => {
                return Act::Refresh(self.shown().iter().map(|view| view.id.clone()).collect());
            }
            KeyCode::Char('s') => {
                self.order = match self.order {
                    Order::Configured => Order::Used,
                    Order::Used => Order::Name,
                    Order::Name => Order::Configured,
                }
            }
            KeyCode::Char('/') => self.is_typing = true,
            KeyCode::Char('?' | 'h') => self.is_helping = true,
            KeyCode::Down | KeyCode::Char('j') => self.select(1),
            KeyCode::Up | KeyCode::Char('k') => self.select(-1),
            _ => {}
        }
        Act::Nothing
    }

    fn typed(&mut self, code: KeyCode) {
        match code {
            KeyCode::Char(letter) => self.filter.push(letter),
            KeyCode::Backspace => drop(self.filter.pop()),
            KeyCode::Esc => {
                self.filter.clear();
                self.is_typing = false;
            }
            KeyCode::Enter => self.is_typing = false,
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

/// The fullest window that is known.
fn most_used(view: &AccountView) -> u32 {
    let used = |used: Used| used.lower_bound().map_or(0, quota::Percent::basis_points);
    view.windows.iter().map(|window| used(window.used)).max().unwrap_or(0)
}
