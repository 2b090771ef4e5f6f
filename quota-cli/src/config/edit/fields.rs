//! Changes the keys of one account, in a table with a header or in an inline table. Comments are kept.

use std::collections::HashMap;

use quota::accounts::Limits;
use quota::{Percent, WindowId};
use toml_edit::{Decor, InlineTable, Item, RawString, TableLike, Value};

use super::values::{limits_value, number};
use crate::config::AccountSettings;

pub(super) fn decor_text(decor: &Decor, is_prefix: bool) -> &str {
    let text = if is_prefix { decor.prefix() } else { decor.suffix() };
    text.and_then(RawString::as_str).unwrap_or_default()
}

/// An item that cannot be edited without losing a comment.
#[derive(Debug)]
pub(super) struct NotEditable;

/// Writes the changed settings of an account.
pub(super) fn set_fields(
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
        // The account has its own header, or dotted keys.
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

/// Removes a key. Its comments are kept on separate lines.
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

pub(super) fn has_comments_inside(value: &Value) -> bool {
    let mut value = value.clone();
    value.decor_mut().clear();
    matches!(value, Value::Array(_) | Value::InlineTable(_)) && value.to_string().contains('#')
}

/// The comments before a key and after its value, one per line.
fn comments_of(table: &dyn TableLike, key: &str) -> Option<String> {
    let before = table.key(key).map(|key| decor_text(key.leaf_decor(), true)).unwrap_or_default();
    let after = table.get(key).and_then(Item::as_value);
    let after = after.map(|value| decor_text(value.decor(), false)).unwrap_or_default();
    let lines = before.lines().chain(after.lines()).map(str::trim).filter(|line| !line.is_empty());
    let lines: Vec<_> = lines.collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}

/// Edits an inline table, and keeps the space before its closing brace. If keys are on separate lines, a new key gets its own line.
pub(super) fn edit_inline<R>(table: &mut InlineTable, edit: impl FnOnce(&mut dyn TableLike) -> R) -> R {
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
