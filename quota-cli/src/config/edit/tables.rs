//! Edits accounts that are written as `[[accounts]]`: their tables, the order, and the comments between them.

use std::collections::HashMap;

use quota::AccountId;
use toml_edit::{ArrayOfTables, DocumentMut, Item, RawString, Table};

use super::fields::{NotEditable, set_fields};
use super::values::{ACCOUNTS, new_keys};
use crate::config::{AccountSettings, Config};

/// Edits accounts that are written as `[[accounts]]`. The error is an account that cannot be edited.
pub(super) fn edit_tables<'a>(
    document: &mut DocumentMut,
    before: &'a Config,
    wanted: &[AccountSettings],
) -> Result<(), &'a AccountSettings> {
    let wanted_of = |id: &AccountId| wanted.iter().find(|account| account.id == *id);
    let mut trailing_comments = HashMap::new();
    for (at, account) in before.accounts.iter().enumerate() {
        let comments = take_trailing_comments(document, at);
        if wanted_of(&account.id).is_some() {
            trailing_comments.extend(comments.map(|comments| (account.id.clone(), comments)));
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
        let Some(comments) = trailing_comments.remove(&account.id) else { continue };
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

/// Reorders tables. A comment that an empty line separates from its table stays at its position.
fn reorder(tables: &mut Vec<Table>, order: &[usize]) {
    let positions = positions(tables);
    let mut prefixes: Vec<_> = tables.iter().enumerate().map(|(at, table)| prefix(table, at)).collect();
    let mut old: Vec<_> = std::mem::take(tables).into_iter().map(Some).collect();
    for (slot, from) in order.iter().enumerate() {
        let mut table = old[*from].take().expect("each table is in the order once");
        let own = std::mem::take(&mut prefixes[*from].1);
        table.decor_mut().set_prefix(format!("{}{own}", prefixes[slot].0));
        tables.push(table);
    }
    let mut next = positions.into_iter();
    let mut last = None;
    for table in tables {
        visit_mut(table, &mut |table| {
            last = next.next().or(last);
            table.set_position(last);
        });
    }
}

/// The positions in the text of these tables and their subtables. A new table has no position.
fn positions(tables: &mut [Table]) -> Vec<isize> {
    let mut positions = Vec::new();
    for table in tables {
        visit_mut(table, &mut |table| positions.extend(table.position()));
    }
    positions.sort_unstable();
    positions
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

/// Moves the comments before an account that an empty line separates from it, because the account will be removed.
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

/// An empty line, if the comments would otherwise be directly above an unrelated table.
fn separator(following: &str, is_last: bool) -> &'static str {
    if following.starts_with('\n') || (is_last && following.is_empty()) { "" } else { "\n" }
}

/// Removes and returns the comments that directly follow an account. They belong to it, such as a setting that is commented out.
fn take_trailing_comments(document: &mut DocumentMut, account: usize) -> Option<String> {
    let mut comments = None;
    change_following(document, account, |following, is_last| {
        let end = match following.find("\n\n") {
            _ if following.starts_with('\n') => return following.to_owned(),
            Some(end) => end + 1,
            None if is_last => following.len(),
            // Without an empty line the comments belong to the next table.
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

/// The index, in visiting order, of the table that follows an account in the text. `None` if the account is the last table.
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
