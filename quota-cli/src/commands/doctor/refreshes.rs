//! Checks the records in the store for conditions that prevent a refresh: failures, holds, cooldowns and used-up budgets.
//! It makes no provider calls. `credentials` finds the current logins.

use std::time::Duration;

use quota::clock::is_from_future;
use quota::model::{CredentialFingerprint, IgnoredField};
use quota::record::{Hold, HoldReason, LastFailure, LastFailureKind, Priority, Record, provider_cooldown};
use quota::store::find_record_key;
use quota::{Clock, Policy, ProviderId};

use super::{Area, Check, Incident};
use crate::config::{AccountSettings, Config, clear_hold};
use crate::format::{self, LocalTime, between};
use crate::hint;
use crate::sanitize::sanitize;
use crate::store::OpenedStore;

/// The time limit for each read of the store.
const STORE_TIMEOUT: Duration = Duration::from_secs(5);
const HOUR: Duration = Duration::from_secs(3600);

/// Checks every enabled account and its provider. `fingerprints` are those of the accounts' credentials.
pub(super) async fn of(
    config: &Config,
    store: &OpenedStore,
    fingerprints: &[Option<CredentialFingerprint>],
    clock: &Clock,
) -> Vec<Check> {
    let mut checks = Vec::new();
    let mut providers: Vec<&ProviderId> = Vec::new();
    let mut local = LocalTime::now();
    for (account, fingerprint) in
        config.accounts.iter().zip(fingerprints).filter(|(account, _)| !account.disabled)
    {
        let read = async {
            let key = find_record_key(&*store.store, &account.id).await?;
            store.store.read(&key).await
        };
        let read = clock.bounded(STORE_TIMEOUT, read).await;
        let Some(Ok(read)) = read else {
            let message = "could not read its record";
            let hint = "see the store check above";
            checks.push(Check::problem(Area::Refresh, account.id.as_str(), message, hint));
            continue;
        };
        local.now = read.now;
        let record = read.document.map_or_else(|| Ok(Record::default()), |found| Record::decode(&found.body));
        match record {
            Ok(record) if !record.is_writable() => {
                let message = "a newer version of quota wrote its record, so this version cannot update it";
                checks.push(Check::warning(Area::Refresh, account.id.as_str(), message, "update quota"));
            }
            Ok(record) => checks.extend(of_account(
                account,
                &record,
                *fingerprint,
                &config.policy_of(account.id.provider()),
                &local,
            )),
            Err(_) => {
                let message = "its record is damaged";
                let hint = format!("replace it: {}", clear_hold(&account.id));
                checks.push(Check::problem(Area::Refresh, account.id.as_str(), message, hint));
            }
        }
        let provider = account.id.provider();
        if !providers.contains(&provider) {
            providers.push(provider);
            let policy = config.policy_of(provider);
            let cooldown = provider_cooldown(&*store.store, provider, &policy, local.now);
            if let Some(Ok(Some(cooldown))) = clock.bounded(STORE_TIMEOUT, cooldown).await {
                checks.push(of_cooldown(provider, &cooldown, &local));
            }
        }
    }
    checks
}

/// The problems of an account, or a single `ok` check if there are none.
fn of_account(
    account: &AccountSettings,
    record: &Record,
    fingerprint: Option<CredentialFingerprint>,
    policy: &Policy,
    local: &LocalTime,
) -> Vec<Check> {
    let failure = record.last_failure().filter(|failure| !is_from_future(failure.at, local.now));
    let failure = failure.map(|failure| of_failure(account, failure, fingerprint, local));
    let hold = record.hold().filter(|hold| hold.is_in_force(local.now));
    let hold = hold.map(|hold| of_hold(account, hold, local));
    let budget = of_budget(account, record, policy, local);
    let mut checks: Vec<_> = failure.into_iter().chain(hold).chain(budget).collect();
    let ignored = of_ignored(account, record.snapshot().ignored());
    if checks.is_empty() {
        let message = match record.complete_at() {
            Some(at) => format!("last refreshed {}", local.relative(at)),
            None => "not refreshed yet".to_owned(),
        };
        checks.push(Check::ok(Area::Refresh, account.id.as_str(), message));
    }
    checks.extend(ignored);
    checks
}

/// The fields of the last response that were skipped. They matter only if a window is missing.
fn of_ignored(account: &AccountSettings, ignored: &[IgnoredField]) -> Option<Check> {
    const SHOWN: usize = 4;
    let names: Vec<_> = ignored.iter().take(SHOWN).map(|one| sanitize(&one.field)).collect();
    let more = if ignored.len() > SHOWN { ", …" } else { "" };
    let message = format!("fields of the last response that quota does not use: {}{more}", names.join(", "));
    (!names.is_empty()).then(|| Check::ok(Area::Refresh, account.id.as_str(), message))
}

fn of_failure(
    account: &AccountSettings,
    failure: &LastFailure,
    fingerprint: Option<CredentialFingerprint>,
    local: &LocalTime,
) -> Check {
    let (subject, when) = (account.id.as_str(), local.relative(failure.at));
    let incident =
        Incident { reason: word(failure.kind), at: Some(failure.at), until: None, requested: None };
    let message = format!("last refresh failed {when}: {}", what_failed(failure));
    // A rejection belongs to one credential.
    let is_replaced = failure.is_credential_rejection()
        && fingerprint.is_some()
        && failure.fingerprint.is_some()
        && failure.fingerprint != fingerprint;
    let check = if is_replaced {
        Check::ok(Area::Refresh, subject, format!("{message}; the login has been replaced since"))
    } else {
        match failure.kind {
            LastFailureKind::Unauthorized => {
                Check::problem(Area::Refresh, subject, message, account.login.hint())
            }
            LastFailureKind::MissingScope => {
                let hint = "use an interactive login or another token; until then quota calls the provider once a day, and readings come from \
                            response headers and Claude Code's statusline";
                Check::problem(Area::Refresh, subject, message, hint)
            }
            // A retry with the same login cannot succeed.
            _ if failure.is_credential_rejection() => {
                let hint = "use another login, or ask the account's administrator";
                Check::problem(Area::Refresh, subject, message, hint)
            }
            LastFailureKind::Throttled => {
                Check::warning(Area::Refresh, subject, message, "wait; quota retries automatically")
            }
            _ => Check::warning(
                Area::Refresh,
                subject,
                message,
                "quota retries automatically; if it persists, fix the cause",
            ),
        }
    };
    check.with_incident(incident)
}

fn what_failed(failure: &LastFailure) -> String {
    match failure.kind {
        LastFailureKind::Unauthorized => "login rejected (401)".to_owned(),
        LastFailureKind::Throttled => "rate limited (429)".to_owned(),
        LastFailureKind::Forbidden => {
            let why = failure.message.trim_start_matches("forbidden: ");
            if why.contains("403") { why.to_owned() } else { format!("{why} (403)") }
        }
        LastFailureKind::MissingScope => {
            let why = failure.message.split(';').next().unwrap_or_default();
            if why.is_empty() { "the token may not read usage (403)".to_owned() } else { why.to_owned() }
        }
        _ if failure.message.is_empty() => "provider error".to_owned(),
        _ => failure.message.clone(),
    }
}

fn of_hold(account: &AccountSettings, hold: &Hold, local: &LocalTime) -> Check {
    let id = &account.id;
    let hint = format!("wait, or clear the hold: {}", clear_hold(id));
    Check::warning(Area::Refresh, id.as_str(), backing_off(hold, local), hint).with_incident(incident(hold))
}

fn of_cooldown(provider: &ProviderId, hold: &Hold, local: &LocalTime) -> Check {
    let message = format!("all its accounts are {}", backing_off(hold, local));
    let hint = "wait until it ends";
    Check::warning(Area::Refresh, provider.as_str(), message, hint).with_incident(incident(hold))
}

fn backing_off(hold: &Hold, local: &LocalTime) -> String {
    let requested = hold.shortened_from().map(|requested| {
        format!("; the provider asked for {}, but quota tries one call earlier", format::duration(requested))
    });
    format!(
        "backing off, next call {}: {}{}",
        local.relative(hold.until),
        hold.reason,
        requested.unwrap_or_default()
    )
}

fn incident(hold: &Hold) -> Incident {
    Incident {
        reason: word(hold.reason),
        at: Some(hold.since),
        until: Some(hold.until),
        requested: hold.shortened_from(),
    }
}

/// The hourly budget, if it is used up.
fn of_budget(
    account: &AccountSettings,
    record: &Record,
    policy: &Policy,
    local: &LocalTime,
) -> Option<Check> {
    // Apply the record's own rule to a copy without the hold, because a hold hides a used-up budget. The rule also removes calls
    // with timestamps in the future.
    let mut record = record.clone();
    let _ = record.clear_hold(local.now);
    let hold = record.hold_for(Priority::Interactive, None, local.now, policy)?;
    if hold.reason != HoldReason::BudgetExhausted {
        return None;
    }
    let recent = record.calls().iter().filter(|attempt| between(attempt.at, local.now) < HOUR).count();
    let calls = format::pluralize(recent as u64, "call");
    let until = local.relative(hold.until);
    let message = format!("hourly call budget used up ({calls}), next call {until}");
    let hint = format!("wait, or raise `budget` in [policy]; list the callers: {}", hint::command("budget"));
    let check = Check::warning(Area::Refresh, account.id.as_str(), message, hint);
    Some(check.with_incident(Incident { at: None, ..incident(&hold) }))
}

/// The serialized name of a kind or a reason.
fn word(value: impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => "other".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use jiff::tz::TimeZone;
    use quota::model::RequestId;
    use quota::policy::Budget;
    use quota::record::{LeaseDecision, LeaseRequest, MaxStaleness};
    use quota::{FetchError, Percent, UsageReport, WindowId, WindowReading};

    use super::*;
    use crate::commands::doctor::Level;
    use crate::config::LoginSource;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn account() -> AccountSettings {
        AccountSettings::new("anthropic/main".parse().unwrap(), LoginSource::ClaudeCode)
    }

    fn policy() -> Policy {
        Policy::default().budget(Budget::new(2, 0))
    }

    /// A record after calls with these outcomes, one every five minutes.
    fn after(outcomes: &[Result<(), FetchError>]) -> Record {
        let mut record = Record::default();
        for (number, outcome) in (0..).zip(outcomes) {
            let now = at(number * 300);
            let request = LeaseRequest::new(RequestId::random(), MaxStaleness::NewCall);
            let LeaseDecision::Granted(lease) = record.begin(now, &request, &policy()) else {
                panic!("a call is allowed")
            };
            match outcome {
                Ok(()) => {
                    let reading = WindowReading::new(WindowId::five_hour(), Percent::ZERO);
                    let _ = record.commit(now, &lease, &UsageReport::polled([reading]));
                }
                Err(error) => drop(record.fail(now, &lease, error, &policy())),
            }
        }
        record
    }

    fn checks(record: &Record, second: i64) -> Vec<Check> {
        let local = LocalTime { now: at(second), zone: TimeZone::UTC };
        of_account(&account(), record, None, &policy(), &local)
    }

    fn lines(checks: &[Check]) -> Vec<String> {
        let line = |check: &Check| {
            let hint = check.hint.as_deref().unwrap_or("nothing to do");
            format!("{:?}: {} ({hint})", check.level, check.message)
        };
        checks.iter().map(line).collect()
    }

    #[test]
    fn a_refreshed_account_is_ok() {
        assert_eq!(
            lines(&checks(&after(&[Ok(())]), 60)),
            ["Ok: last refreshed 1 min ago (08:00) (nothing to do)"]
        );
        assert_eq!(lines(&checks(&Record::default(), 60)), ["Ok: not refreshed yet (nothing to do)"]);
    }

    #[test]
    fn a_failure_and_a_hold_from_the_future_are_ignored() {
        let record = after(&[Err(FetchError::throttled(None))]);

        assert_eq!(lines(&checks(&record, -3600)), ["Ok: not refreshed yet (nothing to do)"]);
    }

    #[test]
    fn a_rejected_login_fails_with_a_login_hint() {
        let found = checks(&after(&[Err(FetchError::Unauthorized)]), 60);

        assert_eq!(
            lines(&found),
            [
                "Fail: last refresh failed 1 min ago (08:00): login rejected (401) (log in again: run `claude`, then /login)"
            ]
        );
        assert_eq!(found[0].incident.as_ref().unwrap().reason, "unauthorized");
    }

    #[test]
    fn a_rejected_login_that_was_replaced_is_ok() {
        let mut record = Record::default();
        let request = LeaseRequest::new(RequestId::random(), MaxStaleness::NewCall);
        let request = request
            .login(quota::model::LoginInfo::unknown().fingerprint(Some(CredentialFingerprint::from_hash(1))));
        let LeaseDecision::Granted(lease) = record.begin(at(0), &request, &policy()) else {
            panic!("a call is allowed")
        };
        drop(record.fail(at(0), &lease, &FetchError::Unauthorized, &policy()));
        let local = LocalTime { now: at(60), zone: TimeZone::UTC };
        let level = |fingerprint| {
            of_account(
                &account(),
                &record,
                Some(CredentialFingerprint::from_hash(fingerprint)),
                &policy(),
                &local,
            )[0]
            .level
        };

        assert_eq!((level(1), level(2)), (Level::Fail, Level::Ok));
    }

    #[test]
    fn a_forbidden_call_fails_with_its_reason() {
        let found =
            checks(&after(&[Err(FetchError::forbidden("reading usage was refused (status 403)"))]), 60);

        assert!(
            lines(&found)[0].starts_with(
                "Fail: last refresh failed 1 min ago (08:00): reading usage was refused (status 403)"
            ),
            "{found:?}"
        );
    }

    #[test]
    fn a_token_without_the_scope_fails_with_its_consequences() {
        let found = checks(&after(&[Err(FetchError::missing_scope("user:profile"))]), 60);

        let message = &lines(&found)[0];
        let why = "Fail: last refresh failed 1 min ago (08:00): the token may not read usage (it lacks the scope user:profile)";
        assert!(
            message.starts_with(why) && message.contains("readings come from response headers"),
            "{message}"
        );
        assert_eq!(found[0].incident.as_ref().unwrap().reason, "missing_scope");
    }

    #[test]
    fn a_token_without_usage_access_fails_and_names_other_sources() {
        let found = checks(&after(&[Err(FetchError::missing_scope("user:profile"))]), 60);

        assert_eq!(found[0].level, Level::Fail);
        assert!(
            found[0].message.ends_with("the token may not read usage (it lacks the scope user:profile)"),
            "{found:?}"
        );
        assert!(found[0].hint.as_ref().unwrap().contains("statusline"), "{found:?}");
    }

    #[test]
    fn a_live_hold_is_a_warning_with_its_end_and_a_command() {
        let found = checks(&after(&[Err(FetchError::throttled(Some(Duration::from_secs(600))))]), 60);

        let [failure, hold] = &lines(&found)[..] else { panic!("{found:?}") };
        assert!(
            failure.starts_with("Warn: last refresh failed 1 min ago (08:00): rate limited (429)"),
            "{failure}"
        );
        assert!(hold.starts_with("Warn: backing off, next call in 9 min (08:10): rate limited ("), "{hold}");
        assert!(hold.ends_with("quota accounts clear-hold anthropic/main)"), "{hold}");
        let incident = found[1].incident.as_ref().unwrap();
        assert_eq!((&*incident.reason, incident.until), ("rate_limited", Some(at(600))));
    }

    #[test]
    fn a_shortened_wait_states_the_requested_wait() {
        let wait = Duration::from_secs(18 * 24 * 3600);
        let found = checks(&after(&[Err(FetchError::throttled(Some(wait)))]), 60);

        assert!(
            found[1].message.contains("the provider asked for 18 d, but quota tries one call earlier"),
            "{found:?}"
        );
        assert_eq!(found[1].incident.as_ref().unwrap().requested, Some(wait));
    }

    #[test]
    fn the_last_failure_is_shown_after_its_hold_expires() {
        let found = checks(&after(&[Err(FetchError::unavailable("could not resolve x"))]), 3000);

        let [failure] = &lines(&found)[..] else { panic!("{found:?}") };
        assert!(
            failure.starts_with("Warn: last refresh failed 50 min ago (08:00): could not resolve x"),
            "{failure}"
        );
    }

    #[test]
    fn a_used_up_budget_is_a_warning_with_its_end() {
        let found = checks(&after(&[Ok(()), Ok(())]), 600);

        let [budget] = &lines(&found)[..] else { panic!("{found:?}") };
        assert!(
            budget.starts_with("Warn: hourly call budget used up (2 calls), next call in 50 min (09:00)"),
            "{budget}"
        );
        assert_eq!(found[0].incident.as_ref().unwrap().reason, "budget_exhausted");
    }

    #[test]
    fn a_hold_does_not_hide_a_used_up_budget() {
        let wait = Some(Duration::from_secs(7200));
        let found = checks(&after(&[Ok(()), Err(FetchError::throttled(wait))]), 600);

        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found[2].message.starts_with("hourly call budget used up"), "{found:?}");
    }

    #[test]
    fn a_cooldown_of_the_provider_is_a_warning() {
        let hold = Hold::new(at(0), at(60), HoldReason::ProviderRateLimited);
        let local = LocalTime { now: at(30), zone: TimeZone::UTC };

        let check = of_cooldown(account().id.provider(), &hold, &local);

        assert_eq!(check.level, Level::Warn);
        assert_eq!(
            check.message,
            "all its accounts are backing off, next call in 30 s (08:01): provider cooldown after a 429"
        );
    }
}
