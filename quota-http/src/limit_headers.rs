//! The rate-limit headers of one response, and the readings that parsers extract from them. The parsers are in
//! `generic_headers` and in the modules of the providers.

use std::borrow::Cow;

use jiff::Timestamp;
use quota_core::model::{Credits, OwnerId, Scope, WindowStatus};
use quota_core::provider::ResponseHeaders;
use quota_core::{Percent, WindowReading};

use crate::lenient::parse_number;
use crate::parsed::SkippedField;

/// The rate-limit headers: names in lower case, and trimmed values. It allocates only if there are such headers.
#[derive(Debug, Default)]
pub(crate) struct LimitHeaders<'a>(Vec<(Cow<'a, str>, &'a str)>);

impl<'a> LimitHeaders<'a> {
    /// The maximum number of headers. No real response has as many. It bounds the work for a hostile response.
    pub(crate) const MAX: usize = 256;

    /// Collects the headers whose names `is_relevant` accepts, in any case.
    pub(crate) fn collect(headers: ResponseHeaders<'a>, is_relevant: impl Fn(&str) -> bool) -> Self {
        let mut collected = Self::default();
        headers.for_each(|name, value| {
            if is_relevant(name)
                && let Ok(value) = std::str::from_utf8(value)
            {
                collected.push(name, value);
            }
        });
        collected
    }

    /// Enough for real responses, so that the list is allocated only once.
    const USUAL: usize = 32;

    pub(crate) fn push(&mut self, name: &'a str, value: &'a str) {
        if self.0.len() < Self::MAX {
            if self.0.is_empty() {
                self.0.reserve(Self::USUAL);
            }
            // The loop has no early exit, so that the compiler can vectorize it.
            let is_lower = !name.bytes().fold(false, |is_upper, byte| is_upper | byte.is_ascii_uppercase());
            let name = if is_lower { Cow::Borrowed(name) } else { Cow::Owned(name.to_ascii_lowercase()) };
            self.0.push((name, value.trim()));
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The names and values, in the order of the response.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &'a str)> {
        self.0.iter().map(|(name, value)| (&**name, *value))
    }

    /// The first value of `name`, which is in lower case.
    pub(crate) fn get(&self, name: &str) -> Option<&'a str> {
        self.iter().find(|(other, _)| *other == name).map(|(_, value)| value)
    }
}

/// Whether `name` begins with `prefix`, in any case.
pub(crate) fn has_prefix(name: &str, prefix: &str) -> bool {
    name.as_bytes().get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
}

/// The readings in the headers of a response.
#[derive(Debug, Default)]
pub(crate) struct HeaderReadings {
    pub(crate) windows: Vec<WindowReading>,
    pub(crate) window_statuses: Vec<WindowStatus>,
    pub(crate) owner_id: Option<OwnerId>,
    pub(crate) credits: Option<Credits>,
    /// The part of the account that the request counts toward, if the headers name one.
    pub(crate) active_scope: Option<Scope>,
    /// When the last used-up request or token limit is replenished.
    pub(crate) replenished_at: Option<Timestamp>,
    /// When the last of the full unnamed windows resets. Unnamed windows are not in `windows`.
    pub(crate) unnamed_reset: Option<Timestamp>,
    pub(crate) skipped: Skipped,
}

impl HeaderReadings {
    pub(crate) fn new(skipped: Skipped) -> Self {
        Self { skipped, ..Self::default() }
    }

    /// The maximum number of windows. No account has as many. It bounds the work for a hostile response.
    pub(crate) const MAX_WINDOWS: usize = 128;

    /// Adds a window. If two headers name the same window, the larger usage counts.
    pub(crate) fn add(&mut self, reading: WindowReading) {
        match self.windows.iter().position(|other| other.id == reading.id) {
            Some(at) if self.windows[at].used < reading.used => self.windows[at] = reading,
            Some(_) => {}
            None if self.windows.len() < Self::MAX_WINDOWS => self.windows.push(reading),
            None => self.skipped.add(|| reading.id.to_string(), "too many windows"),
        }
    }

    /// Adds a limit on requests or tokens.
    pub(crate) fn add_count(&mut self, reading: WindowReading) {
        if reading.used >= Percent::FULL {
            self.replenished_at = self.replenished_at.max(reading.resets_at);
        }
        self.add(reading);
    }
}

/// The skipped headers. The list is optional because it allocates and only some callers need it.
#[derive(Debug, Default)]
pub(crate) struct Skipped {
    is_wanted: bool,
    pub(crate) fields: Vec<SkippedField>,
}

impl Skipped {
    /// Creates an empty list, which stays empty unless the caller needs it.
    pub(crate) fn new(is_wanted: bool) -> Self {
        Self { is_wanted, fields: Vec::new() }
    }

    pub(crate) fn add(&mut self, header: impl FnOnce() -> String, reason: &'static str) {
        if self.is_wanted {
            self.fields.push(SkippedField::new(header(), reason));
        }
    }
}

/// The used fraction, computed from the limit and the remaining amount.
pub(crate) fn used_fraction(limit: Option<&str>, remaining: Option<&str>) -> Option<Percent> {
    used_of(limit.and_then(parse_number)?, remaining.and_then(parse_number)?)
}

/// The used fraction of a limit.
pub(crate) fn used_of(limit: f64, remaining: f64) -> Option<Percent> {
    Some(limit)
        .filter(|limit| *limit > 0.0)
        .and_then(|limit| Percent::from_fraction((limit - remaining) / limit))
}
