//! A client's position in the journals of all accounts, encoded as the id of an event. It contains no names or texts.

use std::collections::BTreeMap;
use std::fmt;

use quota::AccountId;
use quota_journal::{Journal, JournalEvent};
use sha2::{Digest as _, Sha256};

/// A position in the journal of one account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Mark {
    /// The number of the next event.
    pub(crate) next: u64,
    /// A hash of the event before it, which shows whether another journal has replaced this one.
    pub(crate) check: u32,
}

impl Mark {
    /// The position after an event.
    pub(crate) fn after(number: u64, event: &JournalEvent) -> Self {
        Self { next: number.saturating_add(1), check: hash(&event.id()) }
    }

    /// The position at the end of a journal.
    pub(crate) fn end_of(journal: &Journal) -> Self {
        journal.events().next_back().map_or_else(
            || Self { next: journal.next_number(), check: 0 },
            |(number, event)| Self::after(number, event),
        )
    }

    /// The events of a journal after this position; `None` if the journal has dropped some of them, or never had this
    /// position.
    pub(crate) fn rest(self, journal: &Journal) -> Option<impl Iterator<Item = (u64, &JournalEvent)>> {
        let mut events = journal.events().peekable();
        if self.next == 0 {
            // The journal was empty, so it must still have its first event.
            let is_complete = events.peek().is_none_or(|(number, _)| *number == 0);
            return is_complete.then_some(events);
        }
        let last_seen = events.find(|(number, _)| *number + 1 == self.next);
        last_seen.filter(|(number, event)| Self::after(*number, event) == self).map(|_| events)
    }
}

/// The positions in the journals of several accounts.
///
/// Its text has a part for each account, separated by dots: eight hexadecimal digits for the account, eight for the last event, and the
/// number of the next event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Cursor(BTreeMap<u32, Mark>);

impl Cursor {
    /// Parses the id of an event; `None` for any other text.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut marks = BTreeMap::new();
        for part in text.split('.').filter(|_| !text.is_empty()) {
            let (account, rest) = part.split_at_checked(8)?;
            let (check, next) = rest.split_at_checked(8)?;
            let is_number =
                |text: &str, is: fn(&u8) -> bool| !text.is_empty() && text.bytes().all(|b| is(&b));
            if !is_number(account, u8::is_ascii_hexdigit)
                || !is_number(check, u8::is_ascii_hexdigit)
                || !is_number(next, u8::is_ascii_digit)
            {
                return None;
            }
            let mark = Mark { next: next.parse().ok()?, check: u32::from_str_radix(check, 16).ok()? };
            marks.insert(u32::from_str_radix(account, 16).ok()?, mark);
        }
        Some(Self(marks))
    }

    pub(crate) fn get(&self, account: &AccountId) -> Option<Mark> {
        self.0.get(&hash(account.as_str())).copied()
    }

    pub(crate) fn set(&mut self, account: &AccountId, mark: Mark) {
        self.0.insert(hash(account.as_str()), mark);
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (account, mark)) in self.0.iter().enumerate() {
            let separator = if at == 0 { "" } else { "." };
            write!(f, "{separator}{account:08x}{:08x}{}", mark.check, mark.next)?;
        }
        Ok(())
    }
}

/// If two accounts had the same hash, their clients would only miss events, and the hash of the event detects that.
fn hash(text: &str) -> u32 {
    let digest = Sha256::digest(text);
    u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(name: &str) -> AccountId {
        format!("anthropic/{name}").parse().unwrap()
    }

    #[test]
    fn a_cursor_is_read_back() {
        let mut cursor = Cursor::default();
        assert_eq!(Cursor::parse(&cursor.to_string()), Some(cursor.clone()));
        for (name, next, check) in [("main", 0, 0), ("work", u64::MAX, u32::MAX), ("other", 17, 1)] {
            cursor.set(&account(name), Mark { next, check });
        }

        let read = Cursor::parse(&cursor.to_string()).unwrap();

        assert_eq!(read, cursor);
        assert_eq!(read.get(&account("other")), Some(Mark { next: 17, check: 1 }));
        assert_eq!(read.get(&account("missing")), None);
    }

    #[test]
    fn another_text_is_no_cursor() {
        for text in [
            "x",
            ".",
            "7",
            "0123456789abcdef",
            "0123456789abcdef-1",
            "0123456789abcdef+1",
            "+123456789abcdef1",
            "0123456789abcdef1.",
            "0123456789abcdef99999999999999999999999",
            "äääääääääääääääää1",
        ] {
            assert_eq!(Cursor::parse(text), None, "{text}");
        }
    }

    #[test]
    fn the_text_of_a_cursor_is_short() {
        let mut cursor = Cursor::default();
        for number in 0..20 {
            cursor.set(&account(&format!("account-{number}")), Mark { next: 2500, check: number });
        }

        assert!(cursor.to_string().len() < 450);
    }
}
