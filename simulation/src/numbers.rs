//! The usage that the provider reports for a login at one time, as a report and as the header of an ordinary response.

use std::time::Duration;

use jiff::Timestamp;
use quota_core::model::OwnerId;
use quota_core::{Percent, UsageReport, WindowId, WindowReading};

use crate::names::{START, plan_of};

/// The length of the window whose number is the serial number.
const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);
/// The length of the window that fills and rolls over.
pub(crate) const FIVE_HOURS: Duration = Duration::from_secs(5 * 3600);

/// The use of a login, and the serial number of the response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Numbers {
    pub(crate) login: usize,
    pub(crate) serial: u32,
    /// The use of the five-hour window, in hundredths of a percent.
    pub(crate) used_bp: u32,
    /// The reset of that window, in seconds after the start.
    pub(crate) resets_s: u64,
    pub(crate) states_owner: bool,
}

impl Numbers {
    /// The header of an ordinary response.
    pub(crate) const HEADER: &str = "example-usage";

    pub(crate) fn resets_at(self) -> Option<Timestamp> {
        START.checked_add(Duration::from_secs(self.resets_s)).ok()
    }

    /// The response of the usage endpoint.
    pub(crate) fn polled(self) -> UsageReport {
        UsageReport::polled([
            WindowReading::new(WindowId::five_hour(), Percent::from_basis_points(self.used_bp))
                .length(FIVE_HOURS)
                .resets_at(self.resets_at()),
            WindowReading::new(WindowId::seven_day(), Percent::from_basis_points(self.serial))
                .length(WEEK)
                .resets_at(START.checked_add(WEEK).ok()),
        ])
        .plan(plan_of(self.login))
        .owner_id(self.states_owner.then(|| OwnerId::new(&plan_of(self.login))))
    }

    /// The report in the headers of an ordinary response.
    pub(crate) fn headers(self) -> UsageReport {
        let polled = self.polled();
        let mut headers = UsageReport::from_headers(polled.windows);
        headers.plan = polled.plan;
        headers.owner_id = polled.owner_id;
        headers
    }

    /// The value of the header.
    pub(crate) fn to_header(self) -> String {
        let Self { login, serial, used_bp, resets_s, states_owner } = self;
        format!("{login} {serial} {used_bp} {resets_s} {}", u8::from(states_owner))
    }

    /// Parses the value of the header.
    pub(crate) fn parse(header: &str) -> Option<Self> {
        let mut words = header.split(' ');
        Some(Self {
            login: words.next()?.parse().ok()?,
            serial: words.next()?.parse().ok()?,
            used_bp: words.next()?.parse().ok()?,
            resets_s: words.next()?.parse().ok()?,
            states_owner: words.next()? == "1",
        })
    }
}
