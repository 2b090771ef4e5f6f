//! The login that an account last held, as a small document. Through it, readers without the account's credential find
//! its record.

use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{DocumentBody, QuotaStore, StoreError, StoreKey, format_of};
use crate::model::extra_fields::ExtraFields;
use crate::model::{AccountId, LoginId};
use crate::time;

/// The login that an account held at its last refresh. A refresh writes it only if the login has changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoginAlias {
    #[serde(default)]
    format: u32,
    /// `None` if the credential stated no login.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    login_id: Option<LoginId>,
    #[serde(
        rename = "written_ms",
        default,
        with = "jiff::fmt::serde::timestamp::millisecond::optional",
        skip_serializing_if = "Option::is_none"
    )]
    written_at: Option<Timestamp>,
    #[serde(flatten)]
    unknown: ExtraFields,
}

const FORMAT: u32 = 1;

impl Default for LoginAlias {
    fn default() -> Self {
        Self { format: FORMAT, login_id: None, written_at: None, unknown: ExtraFields::default() }
    }
}

impl LoginAlias {
    /// The key of an account's alias: `anthropic/main#login`.
    #[must_use]
    pub fn key(account: &AccountId) -> StoreKey {
        StoreKey::account_extension(account, "login")
    }

    /// The login; `None` if the account's record has the account's name.
    #[must_use]
    pub fn login_id(&self) -> Option<&LoginId> {
        self.login_id.as_ref()
    }

    /// The key of the record of an account with this alias.
    #[must_use]
    pub fn record_key(&self, account: &AccountId) -> StoreKey {
        self.login_id.as_ref().map_or_else(
            || StoreKey::account(account),
            |login_id| StoreKey::login(account.provider(), login_id),
        )
    }

    /// Sets the login that a refresh found. This has no effect if the alias already contains it and will not expire
    /// within half of `ttl`.
    pub(crate) fn set(&mut self, login_id: Option<&LoginId>, now: Timestamp, ttl: Duration) {
        let is_recent = self.written_at.is_some_and(|at| time::elapsed(at, now) < ttl / 2);
        let is_same = self.login_id.as_ref() == login_id && (is_recent || login_id.is_none());
        if self.format <= FORMAT && !is_same {
            (self.format, self.login_id) = (FORMAT, login_id.cloned());
            self.written_at = login_id.map(|_| time::truncate_ms(now));
        }
    }
}

impl DocumentBody for LoginAlias {
    /// A damaged alias counts as empty, and the next refresh replaces it, because that refresh knows the login. An
    /// alias in a newer format is not replaced, even though this program cannot read it.
    fn decode(body: &[u8]) -> Result<Self, StoreError> {
        Ok(serde_json::from_slice(body).unwrap_or_else(|_| {
            let format = format_of(body).filter(|format| *format > FORMAT).unwrap_or(FORMAT);
            Self { format, ..Self::default() }
        }))
    }

    fn encode(&self) -> Bytes {
        serde_json::to_vec(self).expect("an alias has only string keys").into()
    }
}

/// Finds the key of an account's record, for readers without its credential: that of the login that the account last held, as its
/// [`LoginAlias`] states it.
///
/// A program with the credential uses [`Account::record_key`](crate::Account::record_key).
///
/// # Errors
///
/// Any [`StoreError`] of reading.
pub async fn find_record_key(store: &dyn QuotaStore, account: &AccountId) -> Result<StoreKey, StoreError> {
    let read = store.read(&LoginAlias::key(account)).await?;
    let alias = read.document.map(|document| LoginAlias::decode(&document.body)).transpose()?;
    Ok(alias.unwrap_or_default().record_key(account))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(1_000);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn alias_of(login_id: &str) -> LoginAlias {
        let mut alias = LoginAlias::default();
        alias.set(Some(&LoginId::new(login_id)), at(0), TTL);
        alias
    }

    #[test]
    fn an_alias_selects_the_record_of_its_login() {
        let main: AccountId = "anthropic/main".parse().unwrap();

        assert_eq!(LoginAlias::default().record_key(&main).as_str(), "anthropic/main");
        let key = alias_of("account-a").record_key(&main);
        assert_eq!(key, StoreKey::login(main.provider(), &LoginId::new("account-a")));
    }

    #[test]
    fn the_same_login_is_written_again_only_after_half_the_ttl() {
        let alias = alias_of("a");
        let written_at = |second| {
            let mut again = alias.clone();
            again.set(Some(&LoginId::new("a")), at(second), TTL);
            again != alias
        };

        assert_eq!([0, 499, 500].map(written_at), [false, false, true]);
    }

    #[test]
    fn an_absent_login_is_written_only_over_another_one() {
        let mut absent = LoginAlias::default();
        absent.set(None, at(0), TTL);
        let mut alias = alias_of("a");
        alias.set(None, at(0), TTL);

        assert_eq!((absent, alias.login_id()), (LoginAlias::default(), None));
    }

    #[test]
    fn an_alias_of_a_newer_program_is_not_changed() {
        for body in [r#"{"format":2,"login_id":"a","later":true}"#, r#"{"format":2,"login_id":{"a":1}}"#] {
            let mut alias = LoginAlias::decode(body.as_bytes()).unwrap();
            let before = alias.clone();

            alias.set(Some(&LoginId::new("b")), at(0), TTL);

            assert_eq!(alias, before, "{body}");
        }
    }

    #[test]
    fn unknown_fields_survive_a_rewrite() {
        let body = br#"{"format":1,"login_id":"a","written_ms":1,"later":true}"#;
        let mut alias = LoginAlias::decode(body).unwrap();

        alias.set(Some(&LoginId::new("b")), at(0), TTL);

        assert_eq!(
            String::from_utf8_lossy(&alias.encode()),
            r#"{"format":1,"login_id":"b","written_ms":1800000000000,"later":true}"#
        );
    }

    #[test]
    fn a_damaged_alias_is_empty() {
        assert_eq!(LoginAlias::decode(b"{").unwrap(), LoginAlias::default());
    }
}
