//! Describes a change to the accounts for a user who makes it in an editor.

use std::collections::HashMap;

use quota::AccountId;
use toml_edit::Value;

use super::values::{limits_value, new_keys};
use crate::config::AccountSettings;

/// The steps that make the change by hand, in one line. The arguments of token commands are omitted.
pub(in crate::config) fn by_hand(before: &[AccountSettings], wanted: &[AccountSettings]) -> String {
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
            steps.push(format!("set disabled = {} for {id}", account.disabled));
        }
        for (key, now, limits) in [
            ("min_remaining", &now.limits.min_remaining, &account.limits.min_remaining),
            ("killswitch", &now.limits.killswitch, &account.limits.killswitch),
        ] {
            match limits {
                _ if now == limits => {}
                Some(limits) => steps.push(format!("set {key} = {} for {id}", limits_value(limits))),
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
        steps.push(format!("put the accounts in this order: {}", order.collect::<Vec<_>>().join(", ")));
    }
    steps.join("; ")
}
