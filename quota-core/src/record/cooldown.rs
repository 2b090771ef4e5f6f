//! The cooldown of a provider after a 429, for all its accounts. It is a separate document that processes share like a
//! record. The backoff of each account is in its record.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{DecodeError, Hold};
use crate::model::ProviderId;
use crate::model::extra_fields::ExtraFields;
use crate::policy::{CooldownScope, Policy};
use crate::store::{DocumentBody, QuotaStore, StoreError, StoreKey, format_of};

/// The time until which no account of a provider may call it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProviderCooldown {
    format: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hold: Option<Hold>,
    #[serde(flatten)]
    unknown: ExtraFields,
}

/// The format number. It rises when the form of a field or the meaning of other fields changes.
const FORMAT: u32 = 2;

impl Default for ProviderCooldown {
    fn default() -> Self {
        Self { format: FORMAT, hold: None, unknown: ExtraFields::default() }
    }
}

impl ProviderCooldown {
    /// The cooldown that is in force at `now`.
    #[must_use]
    pub fn at(&self, now: Timestamp) -> Option<Hold> {
        self.hold.clone().filter(|hold| hold.is_in_force(now))
    }

    /// Extends the cooldown to the end of `hold`. An earlier end changes nothing.
    pub fn extend(&mut self, now: Timestamp, hold: &Hold) {
        let ends_later = self.at(now).is_none_or(|mine| mine.until < hold.until);
        if self.is_writable() && ends_later {
            self.hold = Some(hold.clone());
        }
    }

    /// Converts the cooldown to a clock that is this far ahead of the clock that wrote it.
    #[must_use]
    pub(crate) fn shifted(mut self, by_ms: i64) -> Self {
        self.hold.iter_mut().for_each(|hold| hold.shift(by_ms));
        self
    }

    /// Whether this program may change the document. It must not if a newer program wrote it.
    pub(crate) fn is_writable(&self) -> bool {
        self.format <= FORMAT
    }

    /// Encodes the cooldown for a store.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        serde_json::to_vec(self).expect("a cooldown has only string keys").into()
    }

    /// Decodes a stored cooldown. A cooldown of an older format is replaced by an empty one, because it lasts only a minute.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if the document is not a cooldown.
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let parsed = match format_of(body) {
            Some(format) if format < FORMAT => return Ok(Self::default()),
            // A newer program may have given the fields another form.
            Some(format) if format > FORMAT => {
                Ok(serde_json::from_slice(body).unwrap_or_else(|_| Self { format, ..Self::default() }))
            }
            _ => serde_json::from_slice(body),
        };
        parsed.map_err(|error| DecodeError { source: Arc::new(error) })
    }
}

impl DocumentBody for ProviderCooldown {
    fn decode(body: &[u8]) -> Result<Self, StoreError> {
        Self::decode(body).map_err(|error| StoreError::corrupt("the cooldown is damaged").with_source(error))
    }

    fn encode(&self) -> Bytes {
        self.encode()
    }
}

/// The cooldown of a provider at `now`, if the policy has one for all accounts.
///
/// A damaged document counts as no cooldown. The manager follows the same rule.
///
/// # Errors
///
/// Any [`StoreError`] of the single read. Dropping the future changes nothing.
pub async fn provider_cooldown(
    store: &dyn QuotaStore,
    provider: &ProviderId,
    policy: &Policy,
    now: Timestamp,
) -> Result<Option<Hold>, StoreError> {
    if policy.cooldown.scope == CooldownScope::Account {
        return Ok(None);
    }
    let reading = store.read(&StoreKey::provider(provider)).await?;
    let cooldown = reading.document.and_then(|document| ProviderCooldown::decode(&document.body).ok());
    Ok(cooldown.and_then(|cooldown| cooldown.at(now)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::HoldReason;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn hold(since: i64, until: i64) -> Hold {
        Hold::new(at(since), at(until), HoldReason::ProviderRateLimited)
    }

    #[test]
    fn the_later_end_wins() {
        let mut cooldown = ProviderCooldown::default();
        cooldown.extend(at(0), &hold(0, 60));
        cooldown.extend(at(10), &hold(10, 40));

        assert_eq!(cooldown.at(at(59)).unwrap().until, at(60));
        assert_eq!(cooldown.at(at(60)), None);
    }

    #[test]
    fn a_later_end_replaces_an_earlier_one_and_an_equal_end_does_not() {
        let mut cooldown = ProviderCooldown::default();
        cooldown.extend(at(0), &hold(0, 60));
        cooldown.extend(at(10), &hold(10, 100));
        cooldown.extend(at(20), &hold(20, 100));

        assert_eq!(cooldown.at(at(20)), Some(hold(10, 100)));
    }

    #[tokio::test]
    async fn a_policy_without_a_shared_cooldown_does_not_read_it() {
        let (store, provider) = (crate::MemoryStore::new(), ProviderId::from_static("anthropic"));
        let mut cooldown = ProviderCooldown::default();
        cooldown.extend(at(0), &hold(0, 60));
        let (key, ttl) = (StoreKey::provider(&provider), std::time::Duration::from_secs(60));
        let _ = store.compare_and_swap(&key, None, cooldown.encode(), ttl).await.unwrap();
        let mut policy = Policy::default();

        assert_eq!(provider_cooldown(&store, &provider, &policy, at(1)).await.unwrap(), Some(hold(0, 60)));
        policy.cooldown.scope = CooldownScope::Account;
        assert_eq!(provider_cooldown(&store, &provider, &policy, at(1)).await.unwrap(), None);
    }

    #[test]
    fn a_cooldown_from_the_future_is_ignored() {
        let mut cooldown = ProviderCooldown::default();
        cooldown.extend(at(1_000_000), &hold(1_000_000, 1_000_060));

        assert_eq!(cooldown.at(at(0)), None);
    }

    #[test]
    fn a_cooldown_within_the_clock_slack_is_respected() {
        let mut cooldown = ProviderCooldown::default();
        cooldown.extend(at(30), &hold(30, 90));

        assert_eq!(cooldown.at(at(0)), Some(hold(30, 90)));
    }

    #[test]
    fn a_new_cooldown_replaces_one_from_the_future() {
        let mut cooldown = ProviderCooldown::default();
        cooldown.extend(at(1_000_000), &hold(1_000_000, 1_000_060));

        cooldown.extend(at(0), &hold(0, 60));

        assert_eq!(cooldown.at(at(1)), Some(hold(0, 60)));
    }

    #[test]
    fn a_cooldown_survives_a_round_trip_through_a_store() {
        let mut cooldown = ProviderCooldown::default();
        cooldown.extend(at(0), &hold(0, 60));

        assert_eq!(ProviderCooldown::decode(&cooldown.encode()).unwrap(), cooldown);
    }

    #[test]
    fn a_cooldown_of_a_higher_format_is_not_changed() {
        let body = br#"{"format":3,"hold":{"since_ms":1800000000000,"until_ms":1800000060000,"reason":"rate_limited"}}"#;
        let mut cooldown = ProviderCooldown::decode(body).unwrap();
        let before = cooldown.clone();

        cooldown.extend(at(0), &hold(0, 3600));

        assert_eq!(cooldown, before);
        assert_eq!(cooldown.at(at(59)).unwrap().until, at(60));
    }

    #[test]
    fn a_cooldown_of_an_older_format_starts_over() {
        let body = br#"{"format":1,"hold":{"since_ms":0,"until_ms":60000,"why":"rate_limited"}}"#;

        assert_eq!(ProviderCooldown::decode(body).unwrap(), ProviderCooldown::default());
    }

    #[test]
    fn a_document_that_is_no_cooldown_is_rejected() {
        for damaged in ["", "null", "{}", "[1]", r#"{"format":2,"hold":7}"#] {
            assert!(ProviderCooldown::decode(damaged.as_bytes()).is_err(), "{damaged}");
        }
    }

    #[test]
    fn unknown_fields_survive() {
        let cooldown = ProviderCooldown::decode(br#"{"format":2,"colour":"blue"}"#).unwrap();

        assert!(String::from_utf8_lossy(&cooldown.encode()).contains(r#""colour":"blue""#));
    }
}
