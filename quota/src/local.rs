//! The usage that other programs stored on this machine: the cached usage of Claude Code, and the session files of Codex.
//! `quota_credentials` reads the files, and `quota_http` parses them. This module decides whether a reading belongs to the login.

use std::time::Duration;

use jiff::Timestamp;
use quota_core::model::Window;
use quota_core::{AccountId, Snapshot, UsageReport};
use quota_credentials::{ClaudeCode, LoginFile, SessionFiles};
use quota_http::{anthropic, codex};

/// How much two reports of the same reset may differ.
const RESET_TOLERANCE: Duration = Duration::from_secs(300);

/// A program on this machine that stores the usage of its login.
///
/// Reading it costs no call to the provider. A reading has the time at which the program received it, so it never
/// replaces a newer one.
///
/// A reading is used only if it certainly belongs to the current login:
///
/// - **Claude Code** stores the id of the account. The reading must have been fetched after the login file was last
///   written, because the id does not distinguish two organizations of one account.
/// - **Codex** does not name the login in a session file. The session must have begun after the login file was last
///   written. A Codex process that was already running may still use the previous login. So its readings must also
///   agree with a reading from the provider: the longest window that both have must reset at the same time. Without
///   such a reading, none is used.
///
/// If the login of Claude Code is in a keychain, the second rule of Codex applies instead of the first one.
///
/// ```no_run
/// # async fn example(manager: &quota::QuotaManager) -> Result<(), Box<dyn std::error::Error>> {
/// use quota::credentials::ClaudeCode;
/// use quota::local::LocalUsage;
///
/// let account = manager.account(&"anthropic/main".parse()?);
/// let usage = account.sync().await;
/// if usage.is_stale() {
///     let local = LocalUsage::claude_code(ClaudeCode::from_env());
///     for report in local.read(account.id(), usage.snapshot(), usage.now()).await {
///         account.observe(&report)?;
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct LocalUsage(Kind);

#[derive(Debug, Clone)]
enum Kind {
    ClaudeCode(ClaudeCode),
    Codex(SessionFiles),
}

impl LocalUsage {
    /// The usage that Claude Code cached for this login.
    #[must_use]
    pub fn claude_code(login: ClaudeCode) -> Self {
        Self(Kind::ClaudeCode(login))
    }

    /// The session files of Codex for this login.
    #[must_use]
    pub fn codex(login: LoginFile) -> Self {
        Self(Kind::Codex(SessionFiles::of(login)))
    }

    /// Returns the readings with a window that is newer than in `known`, the stored readings of the account.
    ///
    /// `now` is the time of the store, to which the readings are converted. A reading from the future is not used. Dropping the
    /// future is safe.
    pub async fn read(&self, account: &AccountId, known: &Snapshot, now: Timestamp) -> Vec<UsageReport> {
        let readings = match &self.0 {
            Kind::ClaudeCode(login) => claude_code(login).await.into_iter().collect(),
            Kind::Codex(sessions) => codex_sessions(sessions, account, known).await,
        };
        let local_now = quota_core::Clock::system().now();
        let used = readings.into_iter().filter(|reading| reading.is_usable(known, local_now));
        used.map(|reading| at_store_time(reading.report, local_now, now)).collect()
    }
}

/// One reading, and whether its login is certain.
#[derive(Debug)]
struct Reading {
    report: UsageReport,
    /// Whether only a reading from the provider can prove that it belongs to the login.
    needs_match: bool,
}

impl Reading {
    fn is_usable(&self, known: &Snapshot, now: Timestamp) -> bool {
        let Some(at) = self.report.observed_at else { return false };
        let is_newer = self.report.windows.iter().any(|reading| {
            let known = known.windows().iter().find(|window| *window.id() == reading.id);
            known.is_none_or(|known| at > known.observed_at())
        });
        at <= now && is_newer && (!self.needs_match || has_same_reset(known, &self.report, now))
    }
}

/// The cached usage of Claude Code, if it states its login.
async fn claude_code(login: &ClaudeCode) -> Option<Reading> {
    let cached = login.cached_usage().await?;
    let login_id = cached.login_id?;
    let report = anthropic::parse_claude_json(&cached.state_file).ok()?.parsed.usage;
    if cached.login_since.is_some_and(|since| report.observed_at.is_none_or(|at| at <= since)) {
        return None;
    }
    Some(Reading { report: report.login_id(login_id), needs_match: cached.login_since.is_none() })
}

/// The readings in the newest sessions of Codex that began with the current login.
async fn codex_sessions(sessions: &SessionFiles, account: &AccountId, known: &Snapshot) -> Vec<Reading> {
    let oldest = known.windows().iter().map(Window::observed_at).min();
    let Some(found) = sessions.read(account, oldest).await else { return Vec::new() };
    let is_of_login =
        |line: &[u8]| codex::parse_session_start(line).is_some_and(|start| start > found.login_since);
    let files = found.files.iter().filter(|file| is_of_login(&file.first_line));
    let reports = files.flat_map(|file| codex::parse_session(&file.tail));
    reports
        .map(|parsed| Reading { report: parsed.usage.login_id(found.login_id.clone()), needs_match: true })
        .collect()
}

/// Whether the longest window that both have, and that has not ended, resets at the same time. Windows of two logins practically never
/// do.
fn has_same_reset(known: &Snapshot, report: &UsageReport, now: Timestamp) -> bool {
    let common = report.windows.iter().filter_map(|reading| {
        let window = known.windows().iter().find(|window| *window.id() == reading.id)?;
        let known_reset = window.resets_at().filter(|reset| *reset > now)?;
        Some((reading.length, known_reset, reading.resets_at?))
    });
    let longest = common.max_by_key(|(length, ..)| *length);
    longest
        .is_some_and(|(_, known, reported)| known.duration_since(reported).unsigned_abs() <= RESET_TOLERANCE)
}

/// Converts the time of a reading from this machine's clock to the store's. Small differences are measurement noise.
fn at_store_time(mut report: UsageReport, local_now: Timestamp, store_now: Timestamp) -> UsageReport {
    const NOISE: Duration = Duration::from_secs(2);
    let difference = store_now.duration_since(local_now);
    if difference.unsigned_abs() > NOISE {
        report.observed_at = report.observed_at.and_then(|at| at.checked_add(difference).ok());
    }
    report
}

#[cfg(test)]
mod tests {
    use quota_core::{Percent, WindowId, WindowReading};

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    const HOUR: i64 = 3600;

    fn windows(five_hour_reset: i64, seven_day_reset: i64) -> [WindowReading; 2] {
        let window = |id, hours: u64, reset| {
            let length = Duration::from_secs(hours * 3600);
            WindowReading::new(id, Percent::ZERO).length(length).resets_at(at(reset))
        };
        [
            window(WindowId::five_hour(), 5, five_hour_reset),
            window(WindowId::seven_day(), 168, seven_day_reset),
        ]
    }

    /// What the provider reported at `at(0)`.
    fn known() -> Snapshot {
        Snapshot::of(&UsageReport::polled(windows(HOUR, 100 * HOUR)), at(0))
    }

    fn reading(seconds: i64, resets: (i64, i64), needs_match: bool) -> Reading {
        Reading { report: UsageReport::from_local(windows(resets.0, resets.1), at(seconds)), needs_match }
    }

    fn is_used(reading: &Reading, known: &Snapshot) -> bool {
        reading.is_usable(known, at(100))
    }

    #[test]
    fn a_reading_with_the_known_reset_belongs_to_the_login() {
        assert!(is_used(&reading(60, (HOUR, 100 * HOUR + 2), true), &known()));
        // A new period of the shorter window.
        assert!(is_used(&reading(60, (4 * HOUR, 100 * HOUR), true), &known()));
    }

    #[test]
    fn a_reading_with_another_reset_belongs_to_another_login() {
        assert!(!is_used(&reading(60, (HOUR, 90 * HOUR), true), &known()));
    }

    #[test]
    fn an_unnamed_login_without_a_known_reading_is_not_used() {
        let reading = reading(60, (HOUR, 100 * HOUR), true);

        assert!(!is_used(&reading, &Snapshot::default()));
        assert!(!is_used(&reading, &Snapshot::of(&UsageReport::polled([]), at(0))));
    }

    #[test]
    fn an_older_reading_is_not_used() {
        assert!(!is_used(&reading(0, (HOUR, 100 * HOUR), false), &known()));
        assert!(is_used(&reading(1, (HOUR, 100 * HOUR), false), &known()));
    }

    #[test]
    fn a_reading_from_the_future_is_not_used() {
        assert!(!is_used(&reading(101, (HOUR, 100 * HOUR), false), &known()));
    }

    #[test]
    fn times_are_converted_to_the_clock_of_the_store() {
        let report = || UsageReport::from_local([], at(60));

        assert_eq!(at_store_time(report(), at(100), at(400)).observed_at, Some(at(360)));
        assert_eq!(at_store_time(report(), at(100), at(101)).observed_at, Some(at(60)));
    }
}
