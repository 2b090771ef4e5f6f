//! The plan of one simulation: processes, callers and faults. It is plain data, so that a failing plan can be printed
//! and shrunk.

use std::time::Duration;

use fastrand::Rng;

/// One simulation.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The seed of all delays and losses, and of the ids and the jitter of quota.
    pub seed: u64,
    /// When callers and faults end. The processes then have time to agree.
    pub length: Duration,
    /// The number of accounts; their names are `example/0`, `example/1` and so on.
    pub accounts: usize,
    /// The number of logins. At the start, account N holds login N modulo this number.
    pub logins: usize,
    /// Whether the credential sources state the login.
    pub states_login: bool,
    /// Whether the provider states the owner of the readings.
    pub states_owner: bool,
    /// Whether commands share a file on their machine while the store is unavailable.
    pub has_outage_files: bool,
    /// The shared store's network.
    pub network: Network,
    /// The usage of the five-hour window that one request adds, in hundredths of a percent.
    pub request_bp: u32,
    /// How long ago the five-hour window of each login began at the start.
    pub window_age: Duration,
    /// How long the provider takes for a response, in milliseconds: shortest and longest.
    pub provider_ms: (u64, u64),
    /// The machines that the processes run on.
    pub machines: Vec<MachinePlan>,
    /// The processes.
    pub processes: Vec<ProcessPlan>,
    /// The faults, in any order.
    pub faults: Vec<Fault>,
}

/// How messages between the processes and the store travel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Network {
    /// The delay of one direction, in microseconds: shortest and longest.
    pub delay_us: (u64, u64),
    /// The fraction of requests that are lost before the store applies them.
    pub lost_requests: f64,
    /// The fraction of requests that are applied late, after the client has given up.
    pub late_requests: f64,
    /// The fraction of responses that are lost.
    pub lost_responses: f64,
    /// The fraction of notices that are lost.
    pub lost_notices: f64,
    /// The longest delay of a notice, in milliseconds.
    pub notice_ms: u64,
    /// The fraction of waits that wake up without a change.
    pub spurious_notices: f64,
}

/// One machine. Its processes share its clock, and the file for outages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MachinePlan {
    /// How far its clock is ahead of the store's, in milliseconds.
    pub clock_ahead_ms: i64,
    /// How fast its clock drifts away from the store's, in millionths.
    pub clock_drift_ppm: i64,
}

/// One process.
#[derive(Debug, Clone, PartialEq)]
pub struct ProcessPlan {
    /// The number of the process, which selects its stream of random numbers.
    pub id: usize,
    /// The index of its machine.
    pub machine: usize,
    /// When it starts.
    pub starts_at: Duration,
    /// Whether it is a program of an earlier version, which does not know all fields of a record.
    pub is_older: bool,
    /// Its login of account N is the one that account N plus this number would have. So two processes may use two logins under one
    /// name.
    pub login_offset: usize,
    /// Its callers.
    pub callers: Vec<Caller>,
}

/// A task of a process that uses one account repeatedly.
#[derive(Debug, Clone, PartialEq)]
pub struct Caller {
    /// The account.
    pub account: usize,
    /// The method it calls.
    pub kind: CallerKind,
    /// The mean time between two calls.
    pub every: Duration,
}

/// The method that a caller calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallerKind {
    /// `Account::get`.
    Get,
    /// `Account::refresh`.
    Refresh,
    /// `Account::refresh_unless_called_within` half a minute.
    RefreshUnlessRecent,
    /// `Account::get_with_max_age` of one minute.
    GetWithinMinute,
    /// `Account::observe` of an ordinary response, which also uses the account.
    Observe,
    /// `Account::keep_fresh`.
    KeepFresh,
    /// `Account::sync`.
    Sync,
    /// `Account::clear_hold`.
    ClearHold,
    /// A short-lived command: a manager with a deadline that does one `get` and closes.
    Command,
    /// `QuotaManager::forget`.
    Forget,
    /// A request through the router of the process: `route`, the request, and `report`. The router selects the account.
    Route,
}

/// One fault.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    /// When it starts.
    pub at: Duration,
    /// How long it lasts. Some faults have no duration.
    pub lasts: Duration,
    /// What fails.
    pub kind: FaultKind,
}

/// What fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FaultKind {
    /// The store does not respond, to one process or to all.
    StoreDown(Option<usize>),
    /// The store rejects writes.
    StoreReadOnly,
    /// The store does not respond for one account's documents.
    AccountDown(usize),
    /// A failover loses the writes of the last `lasts`.
    StoreLoses,
    /// All documents are lost.
    StoreFlushed,
    /// One document expires, by its number modulo the number of documents.
    DocumentExpires(usize),
    /// A process ends without cleanup, and another one with the same number starts after `lasts`.
    Kill(usize),
    /// A process sends and receives nothing, and continues after `lasts`.
    Pause(usize),
    /// A process stops at its next call, as with [`Pause`](Self::Pause), and continues `lasts` after the start of that call.
    PauseInCall(usize),
    /// A machine's clock jumps by this many milliseconds, and back after `lasts`.
    ClockJump(usize, i64),
    /// The provider fails for all calls.
    Provider(ProviderFault),
    /// The login of an account changes in all processes, and changes back after `lasts`.
    LoginSwitch {
        /// The account.
        account: usize,
        /// Its other login.
        login: usize,
    },
    /// The provider rejects the ordinary requests of a login, and requests this wait in seconds.
    RequestsLimited {
        /// The login.
        login: usize,
        /// The wait.
        seconds: u64,
    },
    /// The token of all accounts rotates.
    TokenRotation,
    /// The store replaces documents without comparing their versions. No seed draws it: it shows that the checker works.
    StoreIgnoresVersions,
}

/// How the provider fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProviderFault {
    /// 429 without `Retry-After`.
    RateLimited,
    /// 429 with `Retry-After` in seconds.
    RateLimitedFor(u64),
    /// A server error.
    ServerError,
    /// No response.
    Hang,
    /// A response that cannot be parsed.
    Malformed,
    /// The fetcher panics.
    Panic,
    /// 403.
    Forbidden,
}

impl Plan {
    /// Draws a plan. Some plans have no fault, some have one kind, some have many.
    #[must_use]
    pub fn from_seed(seed: u64) -> Self {
        let rng = &mut Rng::with_seed(seed ^ 0x9e37_79b9_7f4a_7c15);
        let accounts = rng.usize(1..=3);
        let logins = if rng.u8(..4) == 0 { rng.usize(1..=accounts) } else { accounts };
        let length = Duration::from_secs(rng.u64(240..3600));
        let processes = match rng.u8(..10) {
            0 => rng.usize(20..60),
            1..4 => rng.usize(8..20),
            _ => rng.usize(1..8),
        };
        let machines: Vec<_> = (0..rng.usize(1..=processes)).map(|_| MachinePlan::draw(rng)).collect();
        let mut processes = (0..processes)
            .map(|id| ProcessPlan::draw(id, machines.len(), accounts, length, rng))
            .collect::<Vec<_>>();
        let states_login = rng.bool();
        if states_login && rng.u8(..4) == 0 {
            for process in &mut processes {
                process.login_offset = rng.usize(..logins);
            }
        }
        if rng.u8(..5) == 0 {
            processes.iter_mut().for_each(|process| process.is_older = rng.bool());
        }
        let faults = match rng.u8(..4) {
            0 => 0,
            1 => 1,
            _ => rng.usize(1..6),
        };
        let drawn = |_| Fault::draw(processes.len(), machines.len(), accounts, logins, length, rng);
        let faults = (0..faults).map(drawn).collect();
        let mut plan = Self {
            seed,
            length,
            accounts,
            logins,
            states_login,
            states_owner: rng.bool(),
            has_outage_files: rng.bool(),
            network: Network::draw(rng),
            request_bp: if rng.bool() { 20 } else { 200 },
            window_age: if rng.bool() {
                Duration::ZERO
            } else {
                Duration::from_secs(rng.u64(14_400..17_900))
            },
            provider_ms: if rng.bool() { (20, 80) } else { (100, 4_000) },
            machines,
            processes,
            faults,
        };
        match rng.u8(..12) {
            0 => plan.add_stops(rng),
            1 => plan.add_rate_limits(rng),
            2 => plan.add_late_start(rng),
            3 => plan.add_login_switches(rng),
            _ => {}
        }
        plan
    }

    /// Adds processes that are suspended for longer than a lease while others call.
    fn add_stops(&mut self, rng: &mut Rng) {
        self.provider_ms = (2_000, 9_000);
        self.add_refreshes(rng);
        for _ in 0..10 {
            let (at, lasts) = (self.length.mul_f64(rng.f64() * 0.9), Duration::from_secs(rng.u64(11..26)));
            self.faults.push(Fault { at, lasts, kind: FaultKind::Pause(rng.usize(..self.processes.len())) });
        }
        // Often another process calls when one of these continues.
        for _ in 0..4 {
            let at = self.length.mul_f64(rng.f64() * 0.9);
            let lasts = Duration::from_millis(rng.u64(12_100..15_000));
            let kind = FaultKind::PauseInCall(rng.usize(..self.processes.len().min(REFRESHING)));
            self.faults.push(Fault { at, lasts, kind });
        }
    }

    /// Adds short periods of 429s while several accounts wait for their calls.
    fn add_rate_limits(&mut self, rng: &mut Rng) {
        self.add_refreshes(rng);
        for _ in 0..5 {
            let (at, lasts) = (self.length.mul_f64(rng.f64() * 0.9), Duration::from_secs(rng.u64(5..60)));
            self.faults.push(Fault { at, lasts, kind: FaultKind::Provider(ProviderFault::RateLimited) });
        }
    }

    /// Adds a process that starts during an outage, on a machine whose clock is ahead. The others refresh after its merge.
    fn add_late_start(&mut self, rng: &mut Rng) {
        self.add_refreshes(rng);
        let at = self.length.mul_f64(0.1 + rng.f64() * 0.5);
        let lasts = Duration::from_secs(rng.u64(30..120));
        self.faults.push(Fault { at, lasts, kind: FaultKind::StoreDown(None) });
        let machine = self.machines.len();
        self.machines.push(MachinePlan { clock_ahead_ms: rng.i64(5_000..28_000), clock_drift_ppm: 0 });
        let starts_at = at + lasts.mul_f64(rng.f64());
        self.add_reader(machine, starts_at);
    }

    /// Adds short switches of logins, and a process that reads only by a maximum age.
    fn add_login_switches(&mut self, rng: &mut Rng) {
        self.add_reader(0, Duration::ZERO);
        for _ in 0..4 {
            let (at, lasts) = (self.length.mul_f64(rng.f64() * 0.9), Duration::from_secs(rng.u64(30..90)));
            let (account, login) = (rng.usize(..self.accounts), rng.usize(..self.logins));
            self.faults.push(Fault { at, lasts, kind: FaultKind::LoginSwitch { account, login } });
        }
    }

    /// Adds a process that reads each account often by a maximum age.
    fn add_reader(&mut self, machine: usize, starts_at: Duration) {
        let (kind, every) = (CallerKind::GetWithinMinute, Duration::from_secs(10));
        let callers = (0..self.accounts).map(|account| Caller { account, kind, every }).collect();
        let id = self.processes.len();
        self.processes.push(ProcessPlan {
            id,
            machine,
            starts_at,
            is_older: false,
            login_offset: 0,
            callers,
        });
    }

    /// Adds callers that refresh each account about once a minute.
    fn add_refreshes(&mut self, rng: &mut Rng) {
        let accounts = 0..self.accounts;
        for process in self.processes.iter_mut().take(REFRESHING) {
            let every = Duration::from_secs(rng.u64(20..90));
            let refreshes =
                accounts.clone().map(|account| Caller { account, kind: CallerKind::Refresh, every });
            process.callers.extend(refreshes);
        }
    }

    /// Whether the store keeps every write and reaches every process in time, so that the strict rules apply.
    #[must_use]
    pub fn is_store_reliable(&self) -> bool {
        let is_store_fault = |fault: &Fault| {
            matches!(
                fault.kind,
                FaultKind::StoreDown(_)
                    | FaultKind::StoreReadOnly
                    | FaultKind::AccountDown(_)
                    | FaultKind::StoreLoses
                    | FaultKind::StoreFlushed
                    | FaultKind::DocumentExpires(_)
            )
        };
        let network = &self.network;
        network.lost_requests + network.late_requests + network.lost_responses == 0.0
            && !self.faults.iter().any(is_store_fault)
    }

    /// Whether a caller forgets accounts.
    #[must_use]
    pub fn forgets(&self) -> bool {
        let forgets = |caller: &Caller| caller.kind == CallerKind::Forget;
        self.processes.iter().any(|process| process.callers.iter().any(forgets))
    }

    /// Whether quota drops readings on purpose: a caller forgets them, or another login replaces those of a login that no credential
    /// states.
    #[must_use]
    pub fn drops_readings(&self) -> bool {
        let is_switch = |fault: &Fault| matches!(fault.kind, FaultKind::LoginSwitch { .. });
        self.forgets() || !self.states_login && self.faults.iter().any(is_switch)
    }

    /// Whether the store loses documents that it had.
    #[must_use]
    pub fn loses_documents(&self) -> bool {
        let loses = |fault: &Fault| {
            matches!(
                fault.kind,
                FaultKind::StoreLoses | FaultKind::StoreFlushed | FaultKind::DocumentExpires(_)
            )
        };
        self.faults.iter().any(loses)
    }
}

impl Network {
    /// A network without loss.
    pub const RELIABLE: Self = Self {
        delay_us: (20, 400),
        lost_requests: 0.0,
        late_requests: 0.0,
        lost_responses: 0.0,
        lost_notices: 0.0,
        notice_ms: 1,
        spurious_notices: 0.0,
    };

    fn draw(rng: &mut Rng) -> Self {
        let mut network = Self::RELIABLE;
        if rng.bool() {
            network.delay_us = (20, 30_000);
        }
        if rng.u8(..3) == 0 {
            (network.lost_requests, network.late_requests, network.lost_responses) = (0.01, 0.005, 0.01);
        }
        if rng.u8(..3) == 0 {
            (network.lost_notices, network.notice_ms, network.spurious_notices) = (0.2, 3_000, 0.1);
        }
        network
    }
}

impl MachinePlan {
    fn draw(rng: &mut Rng) -> Self {
        let clock_ahead_ms = match rng.u8(..8) {
            0 => rng.i64(-3_600_000..3_600_000),
            1..4 => rng.i64(-1_500..1_500),
            _ => 0,
        };
        let clock_drift_ppm = if rng.u8(..4) == 0 { rng.i64(-200..=200) } else { 0 };
        Self { clock_ahead_ms, clock_drift_ppm }
    }
}

impl ProcessPlan {
    fn draw(id: usize, machines: usize, accounts: usize, length: Duration, rng: &mut Rng) -> Self {
        let machine = rng.usize(..machines);
        let starts_at = if rng.bool() { Duration::ZERO } else { length.mul_f64(rng.f64() / 2.0) };
        let callers = (0..rng.usize(1..4)).map(|_| Caller::draw(accounts, rng)).collect();
        Self { id, machine, starts_at, is_older: false, login_offset: 0, callers }
    }
}

impl Caller {
    fn draw(accounts: usize, rng: &mut Rng) -> Self {
        let (kind, seconds) = match rng.u8(..23) {
            0..6 => (CallerKind::Get, rng.u64(1..120)),
            6 => (CallerKind::Refresh, rng.u64(60..900)),
            7 => (CallerKind::RefreshUnlessRecent, rng.u64(20..300)),
            8..10 => (CallerKind::GetWithinMinute, rng.u64(30..600)),
            10..13 => (CallerKind::Observe, rng.u64(5..300)),
            13..15 => (CallerKind::KeepFresh, 3600),
            15 => (CallerKind::Sync, rng.u64(10..300)),
            16 => (CallerKind::ClearHold, rng.u64(300..1200)),
            17..19 => (CallerKind::Command, rng.u64(5..120)),
            19..22 => (CallerKind::Route, rng.u64(2..90)),
            _ => (CallerKind::Forget, rng.u64(600..2400)),
        };
        Self { account: rng.usize(..accounts), kind, every: Duration::from_secs(seconds) }
    }
}

/// The number of processes that refresh each account in some plans.
const REFRESHING: usize = 4;

impl Fault {
    fn draw(
        processes: usize,
        machines: usize,
        accounts: usize,
        logins: usize,
        length: Duration,
        rng: &mut Rng,
    ) -> Self {
        let process = rng.usize(..processes);
        let kind = match rng.u8(..25) {
            0 => FaultKind::StoreDown(None),
            1 => FaultKind::StoreDown(Some(process)),
            2 => FaultKind::StoreReadOnly,
            3 => FaultKind::AccountDown(rng.usize(..accounts)),
            4 => FaultKind::StoreLoses,
            5 => FaultKind::StoreFlushed,
            6..9 => FaultKind::Kill(process),
            9 | 10 => FaultKind::Pause(process),
            11 => FaultKind::ClockJump(rng.usize(..machines), rng.i64(-7_200_000..7_200_000)),
            12 | 13 => FaultKind::Provider(ProviderFault::RateLimited),
            14 => FaultKind::Provider(ProviderFault::RateLimitedFor(rng.u64(1..4_000))),
            15 => FaultKind::Provider(ProviderFault::ServerError),
            16 => FaultKind::Provider(ProviderFault::Hang),
            17 => FaultKind::Provider(ProviderFault::Malformed),
            18 => FaultKind::Provider(ProviderFault::Panic),
            19 => FaultKind::Provider(ProviderFault::Forbidden),
            20 => FaultKind::LoginSwitch { account: rng.usize(..accounts), login: rng.usize(..logins) },
            21 => FaultKind::TokenRotation,
            22 => FaultKind::DocumentExpires(rng.usize(..8)),
            _ => FaultKind::RequestsLimited { login: rng.usize(..logins), seconds: rng.u64(1..900) },
        };
        let lasts = match rng.u8(..3) {
            0 => Duration::from_millis(rng.u64(1..2_000)),
            1 => Duration::from_secs(rng.u64(1..60)),
            _ => Duration::from_secs(rng.u64(60..900)),
        };
        Self { at: length.mul_f64(rng.f64() * 0.9), lasts, kind }
    }
}
