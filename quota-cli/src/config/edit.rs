//! Edits the accounts in the text of a configuration. The rest of the text is preserved.
//! The commands decide on the list of accounts; `update` reads and writes the file.

use std::collections::HashMap;
use std::path::Path;

use quota::accounts::Limits;
use quota::{AccountId, Percent, WindowId};
use toml_edit::{
    Array, ArrayOfTables, Decor, DocumentMut, InlineTable, Item, RawString, Table, TableLike, Value,
};

use super::error::Lines;
use super::{AccountSettings, Config, LoginSource, Origin, file};

/// The key of the accounts.
const ACCOUNTS: &str = "accounts";

/// Why a text cannot be edited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum EditError {
    /// The item that starts in this line cannot be edited without losing comments or other content.
    Form { line: usize },
    /// A hook in this line names an account that would be removed.
    Hook { line: usize, account: AccountId },
}

/// Returns the text with its accounts replaced by `wanted`, in this order.
///
/// `before` is what the text says now. Of an account that is there already, its limits and whether it is disabled may differ. The
/// result is read again before it is returned: a text that would say anything else is an error.
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
            // A comment in an array belongs to the element before or after it, which only a reader can tell.
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

/// What a person would do to make the change, in one line. Of a program's arguments nothing is repeated.
pub(super) fn by_hand(before: &[AccountSettings], wanted: &[AccountSettings]) -> String {
    let known: HashMap<_, _> = before.iter().map(|account| (&account.id, account)).collect();
    let mut steps = Vec::new();
    for account in wanted {
        let id = &account.id;
        let Some(now) = known.get(id) else {
            let keys = new_keys(account).into_iter().map(|(key, value)| match (key, value) {
                ("token_command", Value::Array(words)) if words.len() > 1 => {
                    let program = words.get(0).map(|word| word.to_string()).unwrap_or_default();
                    format!("token_command = [{program}, …]")
                }
                (key, value) => format!("{key} = {value}"),
            });
            steps.push(format!("add [[accounts]] with {}", keys.collect::<Vec<_>>().join(", ")));
            continue;
        };
        if now.disabled != account.disabled {
            steps.push(format!("write disabled = {} for {id}", account.disabled));
        }
        for (key, now, limits) in [
            ("min_remaining", &now.limits.min_remaining, &account.limits.min_remaining),
            ("killswitch", &now.limits.killswitch, &account.limits.killswitch),
        ] {
            match limits {
                _ if now == limits => {}
                Some(limits) => steps.push(format!("write {key} = {} for {id}", limits_value(limits))),
                None => steps.push(format!("remove {key} of {id}")),
            }
        }
    }
    let is_wanted = |id: &AccountId| wanted.iter().any(|account| account.id == *id);
    let removed = before.iter().filter(|account| !is_wanted(&account.id));
    steps.extend(removed.map(|account| format!("remove {}", account.id)));
    let ids = |accounts: &[AccountSettings]| -> Vec<_> {
        let both = accounts.iter().filter(|one| known.contains_key(&one.id) && is_wanted(&one.id));
        both.map(|account| account.id.clone()).collect()
    };
    let is_new_last = wanted.iter().skip_while(|one| known.contains_key(&one.id));
    let is_new_last = is_new_last.into_iter().all(|one| !known.contains_key(&one.id));
    if ids(before) != ids(wanted) || !is_new_last {
        let order = wanted.iter().map(|account| account.id.as_str());
        steps.push(format!("put them in this order: {}", order.collect::<Vec<_>>().join(", ")));
    }
    steps.join("; ")
}

fn hook_of_removed(text: &str, before: &Config, wanted: &[AccountSettings]) -> Option<EditError> {
    let is_removed = |id: &AccountId| {
        before.accounts.iter().any(|account| account.id == *id)
            && !wanted.iter().any(|account| account.id == *id)
    };
    let hooks = file::read(text).ok()?.hooks;
    let mut named = hooks.iter().flat_map(|hook| &hook.get_ref().accounts);
    let named = named.find(|named| is_removed(named.get_ref()))?;
    let line = Lines::of(text).line(named.span().start);
    Some(EditError::Hook { line, account: named.get_ref().clone() })
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

/// Edits accounts that are written as `[[accounts]]`. The error is an account that cannot be edited.
fn edit_tables<'a>(
    document: &mut DocumentMut,
    before: &'a Config,
    wanted: &[AccountSettings],
) -> Result<(), &'a AccountSettings> {
    let wanted_of = |id: &AccountId| wanted.iter().find(|account| account.id == *id);
    let mut settings_off = HashMap::new();
    for (at, account) in before.accounts.iter().enumerate() {
        let comments = take_settings_off(document, at);
        if wanted_of(&account.id).is_some() {
            settings_off.extend(comments.map(|comments| (account.id.clone(), comments)));
        } else {
            keep_comments(document, at);
        }
    }
    let mut tables = Vec::new();
    let mut ids = Vec::new();
    for (mut table, account) in take_tables(document).into_iter().zip(&before.accounts) {
        if let Some(wanted) = wanted_of(&account.id) {
            set_fields(&mut table, account, wanted).map_err(|NotEditable| account)?;
            tables.push(table);
            ids.push(account.id.clone());
        }
    }
    let new: Vec<_> = wanted.iter().filter(|account| !ids.contains(&account.id)).collect();
    for account in new {
        let mut table = Table::new();
        for (key, value) in new_keys(account) {
            table.insert(key, Item::Value(value));
        }
        if document.as_table().is_empty() && tables.is_empty() {
            // If the document has no tables, all of its text is a trailing comment.
            let head = document.trailing().as_str().unwrap_or_default().trim_end().to_owned();
            document.set_trailing("");
            table.decor_mut().set_prefix(if head.is_empty() { head } else { format!("{head}\n\n") });
        }
        tables.push(table);
        ids.push(account.id.clone());
    }
    let order: Vec<_> = wanted.iter().filter_map(|one| ids.iter().position(|id| *id == one.id)).collect();
    if !order.is_sorted() {
        reorder(&mut tables, &order);
    }
    put_tables(document, tables);
    for (at, account) in wanted.iter().enumerate() {
        let Some(comments) = settings_off.remove(&account.id) else { continue };
        change_following(document, at, |following, is_last| {
            format!("{comments}{}{following}", separator(following, is_last))
        });
    }
    Ok(())
}

/// Removes the tables from the document, but keeps the empty array in its position.
fn take_tables(document: &mut DocumentMut) -> Vec<Table> {
    let Some(Item::ArrayOfTables(tables)) = document.get_mut(ACCOUNTS) else { return Vec::new() };
    std::mem::take(tables).into_iter().collect()
}

fn put_tables(document: &mut DocumentMut, tables: Vec<Table>) {
    let tables: ArrayOfTables = tables.into_iter().collect();
    if tables.is_empty() {
        document.remove(ACCOUNTS);
    } else if let Some(Item::ArrayOfTables(place)) = document.get_mut(ACCOUNTS) {
        *place = tables;
    } else {
        document.insert(ACCOUNTS, Item::ArrayOfTables(tables));
    }
}

/// Puts tables into another order. A comment that is separated from its table by an empty line, and the place in the text, stay
/// where they are.
fn reorder(tables: &mut Vec<Table>, order: &[usize]) {
    let places = places(tables);
    let mut prefixes: Vec<_> = tables.iter().enumerate().map(|(at, table)| prefix(table, at)).collect();
    let mut old: Vec<_> = std::mem::take(tables).into_iter().map(Some).collect();
    for (slot, from) in order.iter().enumerate() {
        let mut table = old[*from].take().expect("each table is in the order once");
        let own = std::mem::take(&mut prefixes[*from].1);
        table.decor_mut().set_prefix(format!("{}{own}", prefixes[slot].0));
        tables.push(table);
    }
    let mut next = places.into_iter();
    let mut last = None;
    for table in tables {
        visit_mut(table, &mut |table| {
            last = next.next().or(last);
            table.set_position(last);
        });
    }
}

/// The places in the text of all these tables and those below them. A table that is new has none.
fn places(tables: &mut [Table]) -> Vec<isize> {
    let mut places = Vec::new();
    for table in tables {
        visit_mut(table, &mut |table| places.extend(table.position()));
    }
    places.sort_unstable();
    places
}

/// Splits the text before a table into the part that stays if the table moves, and the part that moves with it.
fn prefix(table: &Table, at: usize) -> (String, String) {
    let separator = if at == 0 { "" } else { "\n" };
    let text = table.decor().prefix().and_then(RawString::as_str).unwrap_or(separator);
    let indent = text.len() - text.rfind('\n').map_or(0, |at| at + 1);
    let lines = text[..text.len() - indent].lines().rev().take_while(|line| !line.trim().is_empty());
    let own = lines.map(|line| line.len() + 1).sum::<usize>() + indent;
    let (stays, own) = text.split_at(text.len().saturating_sub(own));
    (stays.to_owned(), own.to_owned())
}

/// Keeps the comments before an account that are separated from it by an empty line: it is to be removed.
fn keep_comments(document: &mut DocumentMut, account: usize) {
    let Some(Item::ArrayOfTables(tables)) = document.get(ACCOUNTS) else { return };
    let Some(table) = tables.get(account) else { return };
    let (stays, _) = prefix(table, account);
    let comments = stays.trim_end().to_owned();
    if comments.trim().is_empty() {
        return;
    }
    change_following(document, account, |following, is_last| {
        format!("{comments}\n{}{following}", separator(following, is_last))
    });
}

/// An empty line, where comments would otherwise be directly above a table that they are not about.
fn separator(following: &str, is_last: bool) -> &'static str {
    if following.starts_with('\n') || (is_last && following.is_empty()) { "" } else { "\n" }
}

/// Takes the comments that directly follow an account: they are about it, such as a setting that is commented out.
fn take_settings_off(document: &mut DocumentMut, account: usize) -> Option<String> {
    let mut comments = None;
    change_following(document, account, |following, is_last| {
        let end = match following.find("\n\n") {
            _ if following.starts_with('\n') => return following.to_owned(),
            Some(end) => end + 1,
            None if is_last => following.len(),
            // Without an empty line they belong to the next table.
            None => return following.to_owned(),
        };
        let (own, rest) = following.split_at(end);
        if !own.trim().is_empty() {
            comments = Some(format!("{}\n", own.trim_end()));
        }
        rest.to_owned()
    });
    comments
}

/// Changes the comments between an account and the next table in the text, or the end of the text (`true`).
fn change_following(document: &mut DocumentMut, account: usize, change: impl FnOnce(&str, bool) -> String) {
    let Some(next) = table_after(document, account) else {
        let following = change(document.trailing().as_str().unwrap_or_default(), true);
        document.set_trailing(following);
        return;
    };
    let mut change = Some(change);
    let mut at = 0;
    for (_, item) in document.iter_mut() {
        visit_item_mut(item, &mut |table| {
            if at == next
                && let Some(change) = change.take()
            {
                let following = table.decor().prefix().and_then(RawString::as_str).unwrap_or("\n");
                let following = change(following, false);
                table.decor_mut().set_prefix(following);
            }
            at += 1;
        });
    }
}

/// Which table follows an account in the text, counted as they are visited; `None` if it is the last one.
fn table_after(document: &mut DocumentMut, account: usize) -> Option<usize> {
    let mut positions = Vec::new();
    let mut end = None;
    for (key, item) in document.iter_mut() {
        match item {
            Item::ArrayOfTables(tables) if key.get() == ACCOUNTS => {
                for (at, table) in tables.iter_mut().enumerate() {
                    visit_mut(table, &mut |table| positions.push(table.position()));
                    end = if at == account { Some(positions.len() - 1) } else { end };
                }
            }
            item => visit_item_mut(item, &mut |table| positions.push(table.position())),
        }
    }
    // A table without a position follows the one before it.
    let mut last = 0;
    let mut place = |position: Option<isize>| {
        last = position.unwrap_or(last);
        last
    };
    let places: Vec<_> = positions.into_iter().map(&mut place).collect();
    let mut order: Vec<_> = (0..places.len()).collect();
    order.sort_by_key(|at| places[*at]);
    let end = end?;
    order.iter().skip_while(|at| **at != end).nth(1).copied()
}

/// Visits a table and its subtables, if they have a header.
fn visit_mut(table: &mut Table, visit: &mut impl FnMut(&mut Table)) {
    if !table.is_dotted() {
        visit(table);
    }
    for (_, item) in table.iter_mut() {
        visit_item_mut(item, visit);
    }
}

fn visit_item_mut(item: &mut Item, visit: &mut impl FnMut(&mut Table)) {
    match item {
        Item::Table(table) => visit_mut(table, visit),
        Item::ArrayOfTables(tables) => tables.iter_mut().for_each(|table| visit_mut(table, visit)),
        Item::None | Item::Value(_) => {}
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

fn decor_text(decor: &Decor, is_prefix: bool) -> &str {
    let text = if is_prefix { decor.prefix() } else { decor.suffix() };
    text.and_then(RawString::as_str).unwrap_or_default()
}

/// An item that cannot be edited without losing a comment.
#[derive(Debug)]
struct NotEditable;

/// Writes the changed settings of an account.
fn set_fields(
    table: &mut dyn TableLike,
    now: &AccountSettings,
    wanted: &AccountSettings,
) -> Result<(), NotEditable> {
    if now.disabled != wanted.disabled {
        // An absent key means false. Keep the key if it has a comment.
        let has_comment = comments_of(table, "disabled").is_some();
        if wanted.disabled || has_comment {
            set_value(table, "disabled", wanted.disabled.into());
        } else {
            remove_key(table, "disabled")?;
        }
    }
    set_limits(
        table,
        "min_remaining",
        now.limits.min_remaining.as_ref(),
        wanted.limits.min_remaining.as_ref(),
    )?;
    set_limits(table, "killswitch", now.limits.killswitch.as_ref(), wanted.limits.killswitch.as_ref())
}

fn set_limits(
    table: &mut dyn TableLike,
    key: &str,
    now: Option<&Limits>,
    wanted: Option<&Limits>,
) -> Result<(), NotEditable> {
    if now == wanted {
        return Ok(());
    }
    let Some(wanted) = wanted else { return remove_key(table, key) };
    match table.get_mut(key) {
        Some(Item::Value(Value::InlineTable(limits))) => {
            if limits.to_string().contains('#') {
                return Err(NotEditable);
            }
            edit_inline(limits, |limits| set_windows(limits, now, wanted))
        }
        // With its own header, or with dotted keys.
        Some(Item::Table(limits)) => set_windows(limits, now, wanted),
        _ => {
            set_value(table, key, limits_value(wanted));
            Ok(())
        }
    }
}

fn set_windows(limits: &mut dyn TableLike, now: Option<&Limits>, wanted: &Limits) -> Result<(), NotEditable> {
    let now = now.cloned().unwrap_or_default();
    let windows = |limits: &Limits| -> HashMap<String, Percent> {
        let windows = limits.windows().map(|(window, left)| (WindowId::as_str(window).to_owned(), left));
        limits.default_limit().map(|left| ("every".to_owned(), left)).into_iter().chain(windows).collect()
    };
    let (now, wanted) = (windows(&now), windows(wanted));
    for key in now.keys().filter(|key| !wanted.contains_key(*key)) {
        remove_key(limits, key)?;
    }
    for (key, left) in wanted.iter().filter(|(key, left)| now.get(*key) != Some(left)) {
        set_value(limits, key, number(*left));
    }
    Ok(())
}

/// Sets a value. The comments of an existing value are kept.
fn set_value(table: &mut dyn TableLike, key: &str, mut value: Value) {
    match table.get_mut(key) {
        Some(Item::Value(now)) => {
            *value.decor_mut() = now.decor().clone();
            *now = value;
        }
        _ => {
            let first = table.iter().next().and_then(|(first, _)| table.key(first));
            let prefix = first.map(|key| decor_text(key.leaf_decor(), true)).unwrap_or_default();
            let indent = prefix.rsplit('\n').next().unwrap_or_default().to_owned();
            table.insert(key, Item::Value(value));
            if let Some(mut key) = table.key_mut(key).filter(|_| !indent.is_empty()) {
                key.leaf_decor_mut().set_prefix(indent);
            }
        }
    }
}

/// Removes a key. Its comments stay, on separate lines.
fn remove_key(table: &mut dyn TableLike, key: &str) -> Result<(), NotEditable> {
    let comments = comments_of(table, key);
    match table.get(key) {
        Some(Item::Value(value)) if !has_comments_inside(value) => {}
        Some(Item::Table(limits))
            if !limits.to_string().contains('#')
                && !limits.decor().prefix().and_then(RawString::as_str).unwrap_or_default().contains('#') => {
        }
        Some(_) => return Err(NotEditable),
        None => return Ok(()),
    }
    if let Some(comments) = comments {
        let is_value = |table: &dyn TableLike, key: &str| matches!(table.get(key), Some(Item::Value(_)));
        let keys: Vec<_> = table.iter().map(|(key, _)| key.to_owned()).collect();
        let at = keys.iter().position(|one| one == key).unwrap_or_default();
        if let Some(before) = keys[..at].iter().rev().find(|one| is_value(table, one)) {
            let value = table.get_mut(before).and_then(Item::as_value_mut).ok_or(NotEditable)?;
            let suffix = decor_text(value.decor(), false).to_owned();
            value.decor_mut().set_suffix(format!("{suffix}\n{comments}"));
        } else {
            let next = keys[at..].iter().skip(1).find(|one| is_value(table, one)).ok_or(NotEditable)?;
            let mut next = table.key_mut(next).ok_or(NotEditable)?;
            let prefix = decor_text(next.leaf_decor(), true).to_owned();
            next.leaf_decor_mut().set_prefix(format!("{comments}\n{prefix}"));
        }
    }
    table.remove(key);
    Ok(())
}

fn has_comments_inside(value: &Value) -> bool {
    let mut value = value.clone();
    value.decor_mut().clear();
    matches!(value, Value::Array(_) | Value::InlineTable(_)) && value.to_string().contains('#')
}

/// The comments before a key and after its value, one per line.
fn comments_of(table: &dyn TableLike, key: &str) -> Option<String> {
    let before = table.key(key).map(|key| decor_text(key.leaf_decor(), true)).unwrap_or_default();
    let behind = table.get(key).and_then(Item::as_value);
    let behind = behind.map(|value| decor_text(value.decor(), false)).unwrap_or_default();
    let lines = before.lines().chain(behind.lines()).map(str::trim).filter(|line| !line.is_empty());
    let lines: Vec<_> = lines.collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}

/// Edits an inline table, and keeps the space before its closing brace. If keys are on separate lines, a new key is too.
fn edit_inline<R>(table: &mut InlineTable, edit: impl FnOnce(&mut dyn TableLike) -> R) -> R {
    let take = |table: &mut InlineTable| {
        let (_, last) = table.iter_mut().last()?;
        let suffix = decor_text(last.decor(), false).to_owned();
        last.decor_mut().set_suffix("");
        Some(suffix)
    };
    let suffix = take(table);
    let result = edit(table);
    if let (Some(suffix), Some((_, last))) = (suffix, table.iter_mut().last()) {
        last.decor_mut().set_suffix(suffix);
    }
    let mut first = None;
    for (mut key, _) in table.iter_mut() {
        let prefix = decor_text(key.leaf_decor(), true).to_owned();
        let first = first.get_or_insert_with(|| prefix.clone());
        if first.contains('\n') && !prefix.contains('\n') {
            key.leaf_decor_mut().set_prefix(first.as_str());
        }
    }
    result
}

/// The keys of a new account.
fn new_keys(account: &AccountSettings) -> Vec<(&'static str, Value)> {
    let path = |path: &Path| Value::from(path.to_string_lossy().into_owned());
    let mut keys = vec![("id", Value::from(account.id.as_str()))];
    match &account.login {
        LoginSource::ClaudeCode => {}
        LoginSource::ClaudeConfigDir(dir) => keys.push(("claude_config_dir", path(dir))),
        LoginSource::TokenEnv(name) => keys.push(("token_env", name.as_str().into())),
        LoginSource::TokenFile(file) => keys.push(("token_file", path(file))),
        LoginSource::TokenCommand(words) => {
            keys.push(("token_command", words.iter().collect::<Array>().into()))
        }
    }
    keys.extend(account.base_url.as_ref().map(|url| ("base_url", url.as_str().into())));
    keys.extend(account.limits.min_remaining.as_ref().map(|limits| ("min_remaining", limits_value(limits))));
    keys.extend(account.limits.killswitch.as_ref().map(|limits| ("killswitch", limits_value(limits))));
    keys.extend(account.disabled.then(|| ("disabled", true.into())));
    keys
}

fn limits_value(limits: &Limits) -> Value {
    let windows: Vec<_> = limits.windows().map(|(window, left)| (window.as_str(), number(left))).collect();
    match limits.default_limit() {
        Some(left) if windows.is_empty() => number(left),
        every => every
            .map(|left| ("every", number(left)))
            .into_iter()
            .chain(windows)
            .collect::<InlineTable>()
            .into(),
    }
}

/// A percentage, as an integer if it is whole.
fn number(left: Percent) -> Value {
    let hundredths = left.basis_points();
    if hundredths.is_multiple_of(100) { i64::from(hundredths / 100).into() } else { left.as_f64().into() }
}

#[cfg(test)]
mod tests;
