//! An account as TOML keys and values.

use std::path::Path;

use quota::Percent;
use quota::accounts::Limits;
use toml_edit::{Array, InlineTable, Value};

use crate::config::{AccountSettings, LoginSource};

/// The key of the accounts.
pub(super) const ACCOUNTS: &str = "accounts";

/// The keys of a new account.
pub(super) fn new_keys(account: &AccountSettings) -> Vec<(&'static str, Value)> {
    let path = |path: &Path| Value::from(path.to_string_lossy().into_owned());
    let mut keys = vec![("id", Value::from(account.id.as_str()))];
    match &account.login {
        LoginSource::ClaudeCode | LoginSource::Program(_) => {}
        LoginSource::ProgramDir(_, dir) => keys.push(("login_dir", path(dir))),
        LoginSource::ClaudeConfigDir(dir) => keys.push(("claude_config_dir", path(dir))),
        LoginSource::TokenEnv(name) => keys.push(("token_env", name.as_str().into())),
        LoginSource::TokenFile(file) => keys.push(("token_file", path(file))),
        LoginSource::TokenCommand(words) => {
            keys.push(("token_command", words.iter().collect::<Array>().into()))
        }
        LoginSource::Own => keys.push(("own_login", true.into())),
        LoginSource::Keyring(item) => {
            let user = item.user.as_ref().map(|user| ("user", user.as_str()));
            let table: InlineTable =
                std::iter::once(("service", item.service.as_str())).chain(user).collect();
            keys.push(("keyring", table.into()));
        }
    }
    keys.extend(account.base_url.as_ref().map(|url| ("base_url", url.as_str().into())));
    keys.extend(account.limits.min_remaining.as_ref().map(|limits| ("min_remaining", limits_value(limits))));
    keys.extend(account.limits.killswitch.as_ref().map(|limits| ("killswitch", limits_value(limits))));
    keys.extend(account.disabled.then(|| ("disabled", true.into())));
    keys
}

pub(super) fn limits_value(limits: &Limits) -> Value {
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
pub(super) fn number(left: Percent) -> Value {
    let hundredths = left.basis_points();
    if hundredths.is_multiple_of(100) { i64::from(hundredths / 100).into() } else { left.as_f64().into() }
}
