//! The turn to exchange a token of a provider, as one small document that hosts share.
//! Nothing here does I/O or reads a clock; see `turns` for that.

use std::time::Duration;

use jiff::Timestamp;
use quota_core::AttemptId;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Who may exchange a token of the provider now. It holds no token and no mark of one.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Turn {
    #[serde(default)]
    version: u32,
    /// Rises with every turn, even if the store lost the document meanwhile.
    #[serde(default)]
    pub(crate) fence: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    holder: Option<AttemptId>,
    #[serde(rename = "until_ms", default, with = "until", skip_serializing_if = "Option::is_none")]
    until: Option<Timestamp>,
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

use jiff::fmt::serde::timestamp::millisecond::optional as until;

/// The form that this program writes.
const VERSION: u32 = 1;
/// Longer than an exchange and what is written after it may take, and shorter than the margin before a token's end.
pub(crate) const LASTS: Duration = Duration::from_secs(60);
/// A turn that ends later than any could was given by a clock that was ahead.
const CLOCK_SLACK: Duration = Duration::from_secs(30);

impl Turn {
    /// Reads the document; `None` if it is damaged, or of a newer program: then it is not ours to change.
    pub(crate) fn decode(body: &[u8]) -> Option<Self> {
        serde_json::from_slice(body).ok().filter(|found: &Self| found.version <= VERSION)
    }

    pub(crate) fn encode(&self) -> Option<Vec<u8>> {
        serde_json::to_vec(&Self { version: VERSION, ..self.clone() }).ok()
    }

    /// Takes the turn, or tells until when somebody else has it. Asked twice by one, it is taken once.
    pub(crate) fn take(&mut self, who: AttemptId, now: Timestamp) -> Result<(), Timestamp> {
        let last = now.checked_add(LASTS + CLOCK_SLACK).unwrap_or(Timestamp::MAX);
        match self.until {
            Some(_) if self.holder == Some(who) => Ok(()),
            Some(until) if now < until && until <= last => Err(until),
            _ => {
                let floor = u64::try_from(now.as_millisecond()).unwrap_or_default();
                self.fence = self.fence.saturating_add(1).max(floor);
                self.holder = Some(who);
                self.until = now.checked_add(LASTS).ok();
                Ok(())
            }
        }
    }

    /// Gives the turn back; `false` if somebody else has it by now, and then it stays theirs.
    pub(crate) fn give_back(&mut self, who: AttemptId) -> bool {
        let is_own = self.holder == Some(who);
        if is_own {
            (self.holder, self.until) = (None, None);
        }
        is_own
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: u128 = 1;
    const OTHER: u128 = 2;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    #[test]
    fn one_has_the_turn_and_the_other_learns_until_when() {
        let mut turn = Turn::default();

        assert_eq!(turn.take(ONE.into(), at(0)), Ok(()));
        assert_eq!(turn.take(OTHER.into(), at(1)), Err(at(60)));
        assert_eq!(turn.take(ONE.into(), at(1)), Ok(()), "the same one asks again");
    }

    // B90
    #[test]
    fn the_turn_of_somebody_who_vanished_is_taken_over_when_its_time_is_over() {
        let mut turn = Turn::default();
        turn.take(ONE.into(), at(0)).unwrap();
        let fence = turn.fence;

        assert_eq!(turn.take(OTHER.into(), at(60)), Ok(()));

        assert!(turn.fence > fence);
        assert!(!turn.give_back(ONE.into()), "it is too late to give it back");
        assert_eq!(turn.take(ONE.into(), at(61)), Err(at(120)));
    }

    #[test]
    fn what_is_given_back_can_be_taken_at_once() {
        let mut turn = Turn::default();
        turn.take(ONE.into(), at(0)).unwrap();

        assert!(turn.give_back(ONE.into()));

        assert_eq!(turn.take(OTHER.into(), at(0)), Ok(()));
    }

    #[test]
    fn the_turn_of_a_clock_that_was_ahead_holds_nobody_up() {
        let mut turn = Turn::default();
        turn.take(ONE.into(), at(86_400)).unwrap();
        let fence = turn.fence;

        assert_eq!(turn.take(OTHER.into(), at(0)), Ok(()));

        assert!(turn.fence > fence, "and the fence rises all the same");
    }

    #[test]
    fn a_fence_that_cannot_rise_any_more_is_no_panic() {
        let mut turn = Turn { fence: u64::MAX, ..Turn::default() };

        assert_eq!(turn.take(ONE.into(), at(0)), Ok(()));
    }

    // B97
    #[test]
    fn a_newer_programs_document_is_not_ours_and_unknown_fields_survive() {
        assert_eq!(Turn::decode(br#"{"version":2}"#), None);
        assert_eq!(Turn::decode(b"{"), None);

        let mut turn = Turn::decode(br#"{"version":1,"colour":"green"}"#).unwrap();
        turn.take(ONE.into(), at(0)).unwrap();

        assert!(String::from_utf8(turn.encode().unwrap()).unwrap().contains("green"));
    }

    #[test]
    fn a_turn_is_written_in_this_form() {
        let mut turn = Turn::default();
        turn.take(7.into(), at(0)).unwrap();

        insta::assert_json_snapshot!(serde_json::from_slice::<Value>(&turn.encode().unwrap()).unwrap());
    }
}
