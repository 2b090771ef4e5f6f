//! When a login is renewed, and what an exchange leaves behind: pure rules on what is kept of it.
//! Nothing here does I/O or reads a clock; see `renewal` for that.

use std::time::Duration;

use jiff::Timestamp;
use quota_core::{AccountId, Backoff, CredentialFingerprint, TokenError, Tokens, bounded_wait};

use super::login::{Kept, LoginsFile, Trouble, TroubleKind, identity_mark};
use crate::token;

/// What somebody wants of a login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Want {
    /// The credential.
    Credential,
    /// Another than the one with this mark, which was refused.
    Another(CredentialFingerprint),
}

/// What is to be done for somebody who wants a credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Give it.
    Give,
    /// Exchange the refresh token; the credential can be given meanwhile, or not.
    Exchange { is_usable: bool },
    /// There is none, and none can be got before that moment.
    Wait { until: Timestamp },
    /// There is none, and somebody has to log in.
    LogIn,
}

/// How early to renew, and how long to leave a provider alone that has failed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Pace {
    /// The longest before its end that an access token is renewed.
    pub(crate) margin: Duration,
    /// From 0 to below 1, drawn once in a process, so that not all of them come at once.
    pub(crate) dice: f64,
    pub(crate) backoff: Backoff,
}

/// A moment that lies further ahead than this was written by a clock that has been set back since.
const CLOCK_SLACK: Duration = Duration::from_secs(30);
/// How many spent refresh tokens are remembered.
const MOST_SPENT: usize = 16;

impl LoginsFile {
    /// What is to be done for somebody who wants that account's credential; `None` if nobody is logged in.
    pub(crate) fn step(&self, account: &AccountId, want: Want, now: Timestamp, pace: &Pace) -> Option<Step> {
        let kept = self.logins.get(account)?;
        let is_refused = want == Want::Another(kept.access_mark());
        let is_usable = !is_refused && kept.expires_at.is_none_or(|end| now < end);
        let or_give = |step| Some(if is_usable { Step::Give } else { step });
        let is_due = is_refused || kept.due_at(pace).is_some_and(|due| due <= now);
        if !is_due {
            return Some(Step::Give);
        }
        let Some(mark) = kept.refresh_mark() else { return or_give(Step::LogIn) };
        if is_refused && kept.is_second {
            return Some(Step::LogIn);
        }
        let own = kept.trouble.as_ref().filter(|trouble| trouble.mark == mark);
        if own.is_some_and(|trouble| trouble.kind == TroubleKind::Dead) {
            return or_give(Step::LogIn);
        }
        let held = own.and_then(|trouble| trouble.holds_until(now)).max(self.quiet_until(account, now));
        match held {
            Some(until) => or_give(Step::Wait { until }),
            None => Some(Step::Exchange { is_usable }),
        }
    }

    /// Until when a provider that wants to be left alone is not asked for any of its logins.
    ///
    /// Other failures hold up nobody else: a login that fails each time must not starve its siblings.
    fn quiet_until(&self, account: &AccountId, now: Timestamp) -> Option<Timestamp> {
        let siblings = self.logins.iter().filter(|(id, _)| id.provider() == account.provider());
        let troubles = siblings.filter_map(|(_, kept)| Some((kept.refresh_mark()?, kept.trouble.as_ref()?)));
        troubles
            .filter(|(mark, trouble)| trouble.mark == *mark && trouble.kind == TroubleKind::Throttled)
            .filter_map(|(_, trouble)| trouble.holds_until(now))
            .max()
    }

    /// Notes, before it is sent, that a refresh token is about to be: whoever is killed while it is under way leaves word.
    ///
    /// The first time it may be sent again at once, since some providers give an answer twice that was lost, but not for
    /// long. After that whoever is killed each time keeps the distance of failures. `false` if it is another token by now.
    pub(crate) fn sending(
        &mut self,
        account: &AccountId,
        mark: CredentialFingerprint,
        now: Timestamp,
        pace: &Pace,
    ) -> bool {
        let Some(kept) = self.logins.get_mut(account).filter(|kept| kept.refresh_mark() == Some(mark)) else {
            return false;
        };
        let before = kept.trouble.take().filter(|trouble| trouble.mark == mark);
        let tries = before.as_ref().map_or(0, |trouble| trouble.tries).saturating_add(1);
        let until = if tries == 1 { now } else { later(now, pace.delay(tries - 1)) };
        let why = "the answer to its renewal was lost".to_owned();
        let unknown = before.map(|trouble| trouble.unknown).unwrap_or_default();
        kept.trouble =
            Some(Trouble { mark, kind: TroubleKind::Sent, since: now, until, tries, why, unknown });
        true
    }

    /// Takes what a refresh token was exchanged for; `false` if another has taken its place, which is newer.
    pub(crate) fn take(&mut self, account: &AccountId, mark: CredentialFingerprint, tokens: &Got) -> bool {
        let Some(kept) = self.logins.get_mut(account).filter(|kept| kept.refresh_mark() == Some(mark)) else {
            return false;
        };
        let Got { tokens, at, is_second } = tokens;
        kept.access_token = tokens.access_token.clone();
        if let Some(next) = tokens.refresh_token.as_ref().filter(|next| token::mark(next) != mark) {
            kept.refresh_token = Some(next.clone());
            kept.spent.push(mark);
            let too_many = kept.spent.len().saturating_sub(MOST_SPENT);
            kept.spent.drain(..too_many);
        }
        kept.got_at = Some(*at);
        kept.expires_at = tokens.expires_in.map(|span| later(*at, span));
        kept.is_second = *is_second;
        kept.trouble = None;
        if let Some(identity) = tokens.identity.as_ref().map(identity_mark) {
            if kept.identity.is_some_and(|known| known != identity) {
                // Somebody else's by now: what was read of the one before is not theirs.
                kept.lineage = Kept::new_lineage();
            }
            kept.identity = Some(identity);
        }
        true
    }

    /// Notes why a refresh token was not exchanged; nothing, if another has taken its place.
    pub(crate) fn fail(
        &mut self,
        account: &AccountId,
        mark: CredentialFingerprint,
        error: &TokenError,
        now: Timestamp,
        pace: &Pace,
    ) {
        let Some(kept) = self.logins.get_mut(account).filter(|kept| kept.refresh_mark() == Some(mark)) else {
            return;
        };
        let before = kept.trouble.take().filter(|trouble| trouble.mark == mark);
        let tries = before.as_ref().map_or(1, |trouble| trouble.tries);
        let (kind, wait) = match error {
            TokenError::InvalidGrant { .. } => (TroubleKind::Dead, Duration::ZERO),
            // Nothing changes before somebody changes a setting; now and then is often enough to notice.
            TokenError::InvalidClient { .. } => (TroubleKind::Systemic, pace.backoff.cap),
            _ => match error.retry_after() {
                Some(told) => (TroubleKind::Throttled, pace.delay(tries).max(bounded_wait(told))),
                None => (TroubleKind::Transient, pace.delay(tries)),
            },
        };
        let unknown = before.map(|trouble| trouble.unknown).unwrap_or_default();
        let (until, why) = (later(now, wait), why(error));
        kept.trouble = Some(Trouble { mark, kind, since: now, until, tries, why, unknown });
    }
}

/// What an exchange has given, and when.
#[derive(Debug, Clone)]
pub(crate) struct Got {
    pub(crate) tokens: Tokens,
    /// When it was begun: the access token lives no longer than from then.
    pub(crate) at: Timestamp,
    /// Whether it was made because the access token before was refused.
    pub(crate) is_second: bool,
}

impl Kept {
    /// When the access token is to be renewed; `None` if it is not known to end.
    fn due_at(&self, pace: &Pace) -> Option<Timestamp> {
        let end = self.expires_at?;
        // Of a token that lives for minutes, a part: a longer margin would have it renewed all the time.
        let lives = self.got_at.and_then(|got| Duration::try_from(end.duration_since(got)).ok());
        let margin = lives.map_or(pace.margin, |lives| pace.margin.min(lives / 4));
        let margin = margin.mul_f64(0.5 + pace.dice.clamp(0.0, 1.0) / 2.0);
        Some(end.checked_sub(margin).unwrap_or(Timestamp::MIN))
    }
}

impl Trouble {
    /// Until when it keeps the token from being sent, if it does now.
    fn holds_until(&self, now: Timestamp) -> Option<Timestamp> {
        let is_from_the_future = self.since > later(now, CLOCK_SLACK);
        Some(self.until).filter(|until| now < *until && !is_from_the_future)
    }
}

impl Pace {
    fn delay(&self, tries: u32) -> Duration {
        self.backoff.delay(tries, self.dice)
    }
}

/// What happened, without the words for what follows from it.
fn why(error: &TokenError) -> String {
    match error {
        TokenError::InvalidGrant { why, .. }
        | TokenError::InvalidClient { why, .. }
        | TokenError::Transient { why, .. } => why.clone().into_owned(),
        other => other.to_string(),
    }
}

fn later(at: Timestamp, span: Duration) -> Timestamp {
    at.checked_add(span).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests;
