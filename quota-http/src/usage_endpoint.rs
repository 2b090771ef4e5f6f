//! How a provider's usage endpoint responds, for a gateway that responds in its place. The provider's module writes the
//! bodies.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use quota_core::model::{Credits, Money, Window};
use quota_core::{Percent, Snapshot, Used, WindowId, WindowReading};
use serde_json::{Map, Value, json};

use crate::parsed::{ParseError, Parsed};

/// The usage endpoint of a provider: its path, and functions that write its responses.
///
/// A gateway uses it to answer the provider's clients from cached readings.
///
/// ```
/// use std::time::Duration;
/// use quota_core::{Percent, Snapshot, UsageReport, WindowId, WindowReading};
/// use quota_http::{KnownUsage, anthropic};
///
/// let half = Percent::from_percent(50.0).unwrap();
/// let report = UsageReport::polled([WindowReading::new(WindowId::five_hour(), half)]);
/// let now = "2026-07-01T12:00:00Z".parse()?;
/// let snapshot = Snapshot::of(&report, now);
/// let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
///
/// let known = KnownUsage::of(&snapshot, now, minutes(5), minutes(15));
/// let body = anthropic::PROVIDER.endpoint().unwrap().usage(&known);
///
/// assert_eq!(body["five_hour"]["utilization"], 50.0);
/// assert!(body["seven_day"].is_null());
/// # Ok::<(), jiff::Error>(())
/// ```
#[derive(Clone, Copy)]
pub struct UsageEndpoint {
    path: &'static str,
    usage: fn(&KnownUsage<'_>) -> Map<String, Value>,
    failure: fn(&EndpointFailure<'_>) -> Value,
    countdowns: &'static [&'static str],
    personal: &'static [&'static str],
    has_other_uses: bool,
    query: Option<&'static str>,
}

impl UsageEndpoint {
    /// Creates an endpoint with its path and the functions that write its bodies.
    #[must_use]
    pub const fn new(
        path: &'static str,
        usage: fn(&KnownUsage<'_>) -> Map<String, Value>,
        failure: fn(&EndpointFailure<'_>) -> Value,
    ) -> Self {
        Self { path, usage, failure, countdowns: &[], personal: &[], has_other_uses: false, query: None }
    }

    /// Names the countdown fields, which differ in each response even if nothing has changed.
    #[must_use]
    pub const fn countdowns(mut self, names: &'static [&'static str]) -> Self {
        self.countdowns = names;
        self
    }

    /// Names the fields that identify the user, which a gateway must not send to every client. A dot separates the
    /// parts of a path: `data.label`.
    #[must_use]
    pub const fn personal(mut self, names: &'static [&'static str]) -> Self {
        self.personal = names;
        self
    }

    /// States that the provider's own programs read more than usage from this response. A body written from readings
    /// would break them, so a proxy must forward their requests.
    #[must_use]
    pub const fn with_other_uses(mut self) -> Self {
        self.has_other_uses = true;
        self
    }

    /// Sets the only query for which the response has this format and belongs to the credential; empty for no query.
    #[must_use]
    pub const fn only_query(mut self, query: &'static str) -> Self {
        self.query = Some(query);
        self
    }

    /// The path, which begins with a slash.
    #[must_use]
    pub const fn path(&self) -> &'static str {
        self.path
    }

    /// The countdown fields.
    #[must_use]
    pub const fn countdown_fields(&self) -> &'static [&'static str] {
        self.countdowns
    }

    /// Removes the fields that identify the user from a body.
    pub fn remove_personal(&self, fields: &mut Map<String, Value>) {
        for path in self.personal {
            let (parents, name) = path.rsplit_once('.').unwrap_or(("", path));
            let mut parents = parents.split('.').filter(|parent| !parent.is_empty());
            let object =
                parents.try_fold(&mut *fields, |object, parent| object.get_mut(parent)?.as_object_mut());
            object.map(|object| object.remove(name));
        }
    }

    /// Whether a request with this query gets a response in this format.
    #[must_use]
    pub fn answers(&self, query: Option<&str>) -> bool {
        self.query.is_none_or(|only| query.unwrap_or_default() == only)
    }

    /// The only supported query; `None` if the endpoint ignores queries.
    #[must_use]
    pub const fn query(&self) -> Option<&'static str> {
        self.query
    }

    /// Whether programs read more than usage from the response.
    #[must_use]
    pub const fn has_other_uses(&self) -> bool {
        self.has_other_uses
    }

    /// The body of a successful response.
    ///
    /// It contains only known values. A window that has ended is null or absent, depending on the provider.
    #[must_use]
    pub fn usage(&self, known: &KnownUsage<'_>) -> Map<String, Value> {
        (self.usage)(known)
    }

    /// The body of an error response.
    #[must_use]
    pub fn failure(&self, failure: &EndpointFailure<'_>) -> Value {
        (self.failure)(failure)
    }
}

impl fmt::Debug for UsageEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UsageEndpoint").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Why an endpoint does not respond with usage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndpointFailure<'a> {
    /// The HTTP status.
    pub status: u16,
    /// What happened, and what to do. Clients show it to users.
    pub message: &'a str,
    /// When a client may try again.
    pub retry_after: Option<Duration>,
}

/// The known state of an account at a point in time: the readings that a client may see.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct KnownUsage<'a> {
    /// The windows whose usage is known, sorted by id.
    pub windows: Vec<&'a Window>,
    /// The plan, as the provider names it.
    pub plan: Option<&'a str>,
    /// The credits, unless they are too old.
    pub credits: Option<&'a Credits>,
    /// The time of the response.
    pub now: Timestamp,
    /// The last response of the provider, for the fields that the parser does not know.
    pub last_response: Option<&'a LastResponse>,
}

impl<'a> KnownUsage<'a> {
    /// The known part of a snapshot at `now`. A reading is exact for `fresh_for`, and unknown from the age `max_age`.
    ///
    /// Windows that have ended are not included, because their usage is unknown until the next reading.
    #[must_use]
    pub fn of(snapshot: &'a Snapshot, now: Timestamp, fresh_for: Duration, max_age: Duration) -> Self {
        let is_young = |at: Timestamp| age(at, now) < max_age;
        let is_known = |window: &&Window| {
            is_young(window.observed_at()) && window.used_at(now, fresh_for) != Used::Unknown
        };
        Self {
            windows: snapshot.windows().iter().filter(is_known).collect(),
            plan: snapshot.plan(),
            credits: snapshot.credits().filter(|_| snapshot.complete_at().is_some_and(is_young)),
            now,
            last_response: None,
        }
    }

    /// Adds the last response of the provider. Its unknown fields are passed on.
    #[must_use]
    pub fn last_response(mut self, response: Option<&'a LastResponse>) -> Self {
        self.last_response = response;
        self
    }

    /// Whether there is nothing that a client could use.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.windows.is_empty() && self.credits.is_none()
    }

    /// The age of the oldest window; `None` without one.
    #[must_use]
    pub fn age(&self) -> Option<Duration> {
        self.windows.iter().map(|window| age(window.observed_at(), self.now)).max()
    }

    /// When the response changes without a new reading: at the end of the first window.
    #[must_use]
    pub fn expires_at(&self) -> Option<Timestamp> {
        self.windows.iter().filter_map(|window| window.expires_at()).min()
    }

    /// The window with this id, if its usage is known.
    #[must_use]
    pub fn window(&self, id: &WindowId) -> Option<&'a Window> {
        self.windows.iter().copied().find(|window| window.id() == id)
    }

    /// The fields of the last response, if parsing it gives exactly the known values.
    pub(crate) fn unchanged(&self, parse: Parse) -> Option<Map<String, Value>> {
        let response = self.last_response?;
        let body = serde_json::to_vec(&response.fields).ok()?;
        let usage = parse(&body, response.received_at).ok()?.usage;
        let is_known = |reading: &WindowReading| {
            let window = self.window(&reading.id);
            let is_same = |window: &Window| {
                is_current(reading, window, 0) && reading.is_unlimited == window.is_unlimited()
            };
            window.is_some_and(is_same)
        };
        let is_same = usage.windows.len() == self.windows.len() && usage.windows.iter().all(is_known);
        let is_same = is_same && usage.credits.as_ref() == self.credits && usage.plan.as_deref() == self.plan;
        is_same.then(|| response.fields.clone())
    }

    /// The fields of the last response.
    pub(crate) fn last_fields(&self) -> Option<&'a Map<String, Value>> {
        self.last_response.map(|response| &response.fields)
    }
}

fn age(at: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(at)).unwrap_or_default()
}

/// The last successful response of a usage endpoint, in memory.
#[derive(Debug, Clone)]
pub struct LastResponse {
    received_at: Timestamp,
    fields: Map<String, Value>,
}

impl LastResponse {
    /// The maximum size of a body, in bytes.
    pub const MAX_BYTES: usize = 64 * 1024;

    /// Parses a body that was received at this time; `None` if it is too large, or not a JSON object.
    #[must_use]
    pub fn parse(body: &[u8], received_at: Timestamp) -> Option<Self> {
        let body = Some(body).filter(|body| body.len() <= Self::MAX_BYTES)?;
        match serde_json::from_slice(body).ok()? {
            Value::Object(fields) => Some(Self { received_at, fields }),
            _ => None,
        }
    }

    /// When it was received.
    #[must_use]
    pub fn received_at(&self) -> Timestamp {
        self.received_at
    }

    /// Removes fields at the root.
    pub fn remove(&mut self, names: &[&str]) {
        for name in names {
            self.fields.remove(*name);
        }
    }
}

/// The parser of a provider's responses.
type Parse = fn(&[u8], Timestamp) -> Result<Parsed, ParseError>;

/// Whether a reading of an earlier response is still current, so that its fields can be passed on unchanged.
///
/// `rounding` is the difference in usage that rounding can cause, in basis points.
pub(crate) fn is_current(reading: &WindowReading, window: &Window, rounding: u32) -> bool {
    let used = reading.used.basis_points().abs_diff(window.used().basis_points());
    let same_reset = match (reading.resets_at, window.resets_at()) {
        (None, None) => true,
        // A record stores whole milliseconds, and several fields of a response may differ by microseconds.
        (Some(one), Some(other)) => one.duration_since(other).unsigned_abs() <= Duration::from_secs(1),
        _ => false,
    };
    used <= rounding && same_reset
}

/// An amount with at most four decimal digits, which is enough to read back a use in hundredths of a percent.
pub(crate) fn amount(value: f64) -> Value {
    let rounded = (value * 10_000.0).round() / 10_000.0;
    let is_whole = rounded.fract() == 0.0 && rounded.abs() < 1e15;
    if is_whole { Value::from(rounded as i64) } else { Value::from(rounded) }
}

/// The number in a field that may be text.
pub(crate) fn number_of(field: Option<&Value>) -> Option<f64> {
    match field? {
        Value::String(text) => text.parse().ok(),
        field => field.as_f64(),
    }
}

/// The part of a window that is left, in percent. It is negative beyond the limit.
pub(crate) fn percent_left(window: &Window) -> f64 {
    (10_000.0 - f64::from(window.used().basis_points())) / 100.0
}

/// An amount without its unit, as text.
pub(crate) fn amount_text(money: &Money) -> String {
    let text = money.to_string();
    text.rsplit_once(' ').map_or(&*text, |(amount, _)| amount).to_owned()
}

/// An amount without its unit, as a number of JSON.
pub(crate) fn decimal(money: &Money) -> Value {
    let amount = amount_text(money);
    serde_json::from_str(&amount).unwrap_or_else(|_| amount.into())
}

/// The spent and remaining parts of a limit. Because amounts are rounded, the spent amount is used unless it
/// contradicts the usage of the window.
pub(crate) fn spent_and_left(limit: f64, spent: Option<f64>, used: Percent) -> (f64, f64) {
    let share = |spent: f64| {
        if limit > 0.0 { Percent::from_percent(spent / limit * 100.0) } else { Some(Percent::FULL) }
    };
    let spent = spent.filter(|spent| share(*spent) == Some(used));
    let spent = spent.unwrap_or_else(|| limit * used.as_f64() / 100.0);
    // Removes floating point noise, which has more digits than an amount.
    let rounded = |amount: f64| (amount * 1e9).round() / 1e9;
    (rounded(spent), rounded(limit - spent))
}

/// The window into which the provider's parser turns a row of `limits`.
pub(crate) fn window_of_limit(row: &Value, parse: Parse) -> Option<WindowId> {
    let body = json!({ "limits": [row] }).to_string();
    let usage = parse(body.as_bytes(), Timestamp::UNIX_EPOCH).ok()?.usage;
    usage.windows.into_iter().next().map(|reading| reading.id)
}

/// A percentage as a whole number. Only an exhausted window is 100.
pub(crate) fn whole_percent(used: Percent) -> u64 {
    let rounded = (used.basis_points() + 50) / 100;
    u64::from(if used < Percent::FULL { rounded.min(99) } else { rounded })
}

/// Helpers for the tests of the modules that write bodies.
#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// The body that is written some seconds after a snapshot and a last response were read.
    pub(crate) fn written(
        usage: fn(&KnownUsage<'_>) -> Map<String, Value>,
        snapshot: &Snapshot,
        last: Option<&Value>,
        read_at: Timestamp,
        seconds: i64,
    ) -> Value {
        let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
        let last = last.map(|body| LastResponse::parse(body.to_string().as_bytes(), read_at).unwrap());
        let now = read_at + jiff::SignedDuration::from_secs(seconds);
        let known = KnownUsage::of(snapshot, now, minutes(5), minutes(15));
        Value::Object(usage(&known.last_response(last.as_ref())))
    }
}

#[cfg(test)]
mod tests {
    use quota_core::UsageReport;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn snapshot(resets_at: Option<Timestamp>) -> Snapshot {
        let half = Percent::from_percent(50.0).unwrap();
        let reading = WindowReading::new(WindowId::five_hour(), half).resets_at(resets_at);
        let mut credits = Credits::default();
        credits.enabled = Some(true);
        Snapshot::of(&UsageReport::polled([reading]).credits(credits), at(0))
    }

    fn known(snapshot: &Snapshot, second: i64) -> KnownUsage<'_> {
        KnownUsage::of(snapshot, at(second), Duration::from_secs(300), Duration::from_secs(900))
    }

    #[test]
    fn a_window_is_known_until_it_ends() {
        let snapshot = snapshot(Some(at(600)));

        assert_eq!(known(&snapshot, 599).windows.len(), 1);
        assert!(known(&snapshot, 600).windows.is_empty());
        assert_eq!(known(&snapshot, 599).expires_at(), Some(at(600)));
    }

    #[test]
    fn nothing_is_known_from_the_maximum_age_on() {
        let snapshot = snapshot(Some(at(5000)));

        assert!(!known(&snapshot, 899).is_empty());
        assert!(known(&snapshot, 900).is_empty());
    }

    #[test]
    fn an_old_window_without_a_reset_is_unknown() {
        let snapshot = snapshot(None);

        assert_eq!(known(&snapshot, 299).windows.len(), 1);
        assert!(known(&snapshot, 300).windows.is_empty());
        assert!(known(&snapshot, 300).credits.is_some());
    }

    #[test]
    fn the_age_is_that_of_the_oldest_window() {
        assert_eq!(known(&snapshot(Some(at(600))), 60).age(), Some(Duration::from_secs(60)));
    }

    #[test]
    fn only_an_exhausted_window_is_a_hundred_percent() {
        let whole = |basis_points| whole_percent(Percent::from_basis_points(basis_points));

        assert_eq!((whole(0), whole(49), whole(50), whole(9960), whole(10_000)), (0, 0, 1, 99, 100));
        assert_eq!(whole(10_420), 104);
    }

    #[test]
    fn a_body_that_is_too_large_or_no_object_is_not_kept() {
        let large = format!("{{\"a\":\"{}\"}}", "x".repeat(LastResponse::MAX_BYTES));

        for body in [&*large, "[]", "null", "<html>", ""] {
            assert!(LastResponse::parse(body.as_bytes(), at(0)).is_none());
        }
        assert!(LastResponse::parse(b"{}", at(0)).is_some());
    }
}
