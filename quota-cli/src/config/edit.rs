//! Edits the accounts in the text of a configuration. The rest of the text is preserved.
//! The commands decide on the list of accounts; `update` reads and writes the file.

mod by_hand;
mod fields;
mod tables;
mod values;

use std::collections::HashMap;
use std::path::Path;

use quota::AccountId;
use toml_edit::{Array, DocumentMut, InlineTable, Item, Value};

pub(super) use self::by_hand::by_hand;
use self::fields::{NotEditable, decor_text, edit_inline, has_comments_inside, set_fields};
use self::tables::edit_tables;
use self::values::{ACCOUNTS, new_keys};
use super::defined_providers::own_name;
use super::error::Lines;
use super::{AccountSettings, Config, LoginSource, Origin, file};

/// Why a text cannot be edited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum EditError {
    /// The item that starts in this line cannot be edited without losing comments or other content.
    Form { line: usize },
    /// A hook in this line names an account that would be removed.
    Hook { line: usize, account: AccountId },
}

/// The table of a new account with this login.
pub(crate) fn new_account(id: &AccountId, login: &LoginSource) -> String {
    let keys = new_keys(&AccountSettings::new(id.clone(), login.clone()));
    let keys = keys.into_iter().map(|(key, value)| format!("{key} = {value}\n"));
    format!("[[accounts]]\n{}", keys.collect::<String>())
}

/// Returns the text with its accounts replaced by `wanted`, in this order.
///
/// `before` is the configuration in the text. For an existing account, only the limits and `disabled` may change. The result is parsed
/// again before it is returned, and a different configuration is an error.
pub(super) fn with_accounts(
    text: &str,
    directory: &Path,
    before: &Config,
    wanted: &[AccountSettings],
) -> Result<String, EditError> {
    if is_same(&before.accounts, wanted) {
        return Ok(text.to_owned());
    }
    if let Some(error) = hook_of_removed(text, before, wanted) {
        return Err(error);
    }
    let form = |account: Option<&AccountSettings>| EditError::Form { line: line_of(text, account) };
    let plain = PlainText::of(text);
    let mut document: DocumentMut = plain.text.parse().map_err(|_| form(None))?;
    match document.get_mut(ACCOUNTS) {
        None => edit_tables(&mut document, before, wanted).map_err(|at| form(Some(at)))?,
        Some(Item::ArrayOfTables(_)) => {
            edit_tables(&mut document, before, wanted).map_err(|at| form(Some(at)))?;
        }
        Some(Item::Value(Value::Array(array))) => {
            // A comment in an array may belong to the element before or after it, so do not edit such an array.
            if has_comments_inside(&Value::Array(array.clone())) {
                return Err(form(None));
            }
            edit_array(array, before, wanted).map_err(|at| form(Some(at)))?;
        }
        Some(_) => return Err(form(None)),
    }
    let edited = plain.restore(document.to_string());
    let after = Config::parse(&edited, directory, &[]);
    let is_right = after.is_ok_and(|after| {
        let rest = |config: &Config| Config { accounts: Vec::new(), ..config.clone() };
        is_same(&after.accounts, wanted) && rest(&after) == Config { path: None, ..rest(before) }
    });
    if is_right { Ok(edited) } else { Err(form(changed(before, wanted))) }
}

/// Whether two lists are equal, ignoring where each account is defined.
pub(super) fn is_same(one: &[AccountSettings], other: &[AccountSettings]) -> bool {
    let plain = |account: &AccountSettings| AccountSettings { origin: Origin::Default, ..account.clone() };
    one.len() == other.len() && one.iter().zip(other).all(|(one, other)| plain(one) == plain(other))
}

fn hook_of_removed(text: &str, before: &Config, wanted: &[AccountSettings]) -> Option<EditError> {
    let is_removed = |id: &AccountId| {
        before.accounts.iter().any(|account| account.id == *id)
            && !wanted.iter().any(|account| account.id == *id)
    };
    let hooks = file::read(text).ok()?.hooks;
    let mut named = hooks.iter().flat_map(|hook| &hook.get_ref().accounts);
    let named = named.find(|named| is_removed(&own_name(named.get_ref())))?;
    let line = Lines::of(text).line(named.span().start);
    Some(EditError::Hook { line, account: own_name(named.get_ref()) })
}

/// The line of an account, or else the first line of the accounts.
fn line_of(text: &str, account: Option<&AccountSettings>) -> usize {
    if let Some(Origin::Configured { line }) = account.map(|account| account.origin) {
        return line;
    }
    let first = text
        .lines()
        .position(|line| line.trim_start().trim_start_matches('[').trim_start().starts_with(ACCOUNTS));
    first.map_or(1, |at| at + 1)
}

/// The first account that the edit changes or removes.
fn changed<'a>(before: &'a Config, wanted: &[AccountSettings]) -> Option<&'a AccountSettings> {
    let same = |account: &AccountSettings| {
        wanted.iter().any(|one| is_same(std::slice::from_ref(one), std::slice::from_ref(account)))
    };
    before.accounts.iter().find(|account| !same(account))
}

/// A text with LF line endings and no byte order mark, as `toml_edit` writes it.
struct PlainText {
    text: String,
    has_mark: bool,
    is_crlf: bool,
}

impl PlainText {
    const MARK: char = '\u{feff}';

    fn of(text: &str) -> Self {
        let (has_mark, text) = match text.strip_prefix(Self::MARK) {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let is_crlf = text.contains("\r\n") && text.matches('\n').count() == text.matches("\r\n").count();
        let text = if is_crlf { text.replace("\r\n", "\n") } else { text.to_owned() };
        Self { text, has_mark, is_crlf }
    }

    fn restore(&self, edited: String) -> String {
        // If the first table was removed, the next one still has its leading blank line.
        let is_closed = !self.text.starts_with('\n');
        let edited = if is_closed { edited.trim_start_matches('\n').to_owned() } else { edited };
        let edited = if self.is_crlf { edited.replace('\n', "\r\n") } else { edited };
        if self.has_mark { format!("{}{edited}", Self::MARK) } else { edited }
    }
}

/// Edits accounts that are written as `accounts = [...]`, without comments. The error is an account that cannot be edited.
fn edit_array<'a>(
    array: &mut Array,
    before: &'a Config,
    wanted: &[AccountSettings],
) -> Result<(), &'a AccountSettings> {
    let prefixes: Vec<_> = array.iter().map(|value| decor_text(value.decor(), true).to_owned()).collect();
    let is_multiline = prefixes.first().is_some_and(|prefix| prefix.contains('\n'));
    let last =
        array.iter().last().map(|value| decor_text(value.decor(), false).to_owned()).unwrap_or_default();
    let mut old: HashMap<_, _> =
        before.accounts.iter().map(|account| &account.id).zip(array.iter().cloned()).collect();
    array.clear();
    for (slot, account) in wanted.iter().enumerate() {
        let value = match (old.remove(&account.id), before.accounts.iter().find(|now| now.id == account.id)) {
            (Some(mut value), Some(now)) => {
                let table = value.as_inline_table_mut().ok_or(now)?;
                edit_inline(table, |table| set_fields(table, now, account)).map_err(|NotEditable| now)?;
                value
            }
            _ => Value::InlineTable(new_keys(account).into_iter().collect::<InlineTable>()),
        };
        let prefix = match prefixes.get(slot).or(prefixes.last().filter(|_| is_multiline)) {
            Some(prefix) => prefix,
            None if slot == 0 => "",
            None => " ",
        };
        let suffix = if slot + 1 == wanted.len() { &*last } else { "" };
        array.push_formatted(value.decorated(prefix, suffix));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
