//! The steps that are possible in a state, the faults, and the properties.

use stateright::{Model, Property};

use crate::pool::Id;
use crate::progress::AGREEMENT;
use crate::rules::EMPTY;
use crate::state::{ACCOUNTS, Host, Past, State, Step, Sync, Violation};
use crate::system::{Protocol, TICK, Witness, next_tick};

/// One step of one part of the system. The number is the host's, or the account's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// The clock advances by two seconds.
    Tick,
    /// The host starts a refresh: it decides, and sends a compare-and-swap.
    Begin(usize),
    /// The host reads the record, as its follower does.
    Read(usize),
    /// The store handles the host's swap, and its answer arrives.
    Answer(usize),
    /// The provider responds with readings.
    Success(usize),
    /// The provider responds with 429.
    RateLimit(usize),
    /// The host reads the provider's cooldown.
    ReadCooldown(usize),
    /// The host writes the provider's cooldown.
    PublishCooldown(usize),
    /// The answer to the host's swap does not arrive.
    LoseAnswer {
        /// The host.
        host: usize,
        /// Whether the store has applied the swap.
        is_applied: bool,
    },
    /// The store applies a swap that the host has abandoned.
    ApplyLate(usize),
    /// The host restarts, and loses its memory.
    Crash(usize),
    /// The host is suspended.
    Suspend(usize),
    /// The host continues.
    Resume(usize),
    /// The store stops responding.
    StoreDown,
    /// The store responds again.
    StoreUp,
    /// The store loses the record of an account.
    LoseRecord(usize),
    /// The store loses the last write to the record of an account.
    FailOver(usize),
}

impl Protocol {
    fn may_tick(&self, state: &State) -> bool {
        let next = next_tick(state.now);
        next <= self.bounds.ticks * TICK
            && state.hosts.iter().filter(|host| !host.is_suspended).all(|host| match &host.step {
                Step::Idle => true,
                // A call ends at its timeout.
                Step::Calling { since, .. } => next <= next_tick(*since),
                // The timeout of the store is shorter than a tick.
                Step::Swapping(_) | Step::Publishing => false,
            })
    }

    /// Running calls are no longer exclusive, because the store has lost their leases.
    fn lose(&self, state: &mut State, account: usize, record: Id) {
        state.store[account] = record;
        (state.past.has_lost, state.past.has_just_lost) = (true, true);
        for host in (0..self.bounds.hosts).filter(|host| self.account(*host) == account) {
            not_exclusive(&mut state.hosts[host]);
        }
    }

    fn apply(&self, state: &mut State, action: Action) {
        match action {
            Action::Tick => state.now = next_tick(state.now),
            Action::Begin(host) => self.begin(state, host),
            Action::Read(host) => self.read(state, host),
            Action::Answer(host) => self.answer(state, host),
            Action::Success(host) => self.respond(state, host, true),
            Action::RateLimit(host) => self.respond(state, host, false),
            Action::ReadCooldown(host) => self.read_cooldown(state, host),
            Action::PublishCooldown(host) => self.publish_cooldown(state, host),
            Action::LoseAnswer { host, is_applied } => {
                state.faults_left -= u8::from(!state.is_down);
                match state.hosts[host].step {
                    Step::Publishing => state.hosts[host].step = Step::Idle,
                    _ => self.lose_answer(state, host, is_applied),
                }
            }
            Action::ApplyLate(host) => {
                let late = state.hosts[host].late.take().expect("there is a late write");
                self.witness(Witness::LateWriteApplied);
                state.past.had_delay = true;
                self.write(state, self.account(host), &late);
            }
            Action::Crash(host) => {
                state.faults_left -= 1;
                let Host { step, attempt, late, .. } = &state.hosts[host];
                let next = attempt + u8::from(*step != Step::Idle);
                state.hosts[host] = Host { late: *late, ..Host::started(next) };
            }
            Action::Suspend(host) => {
                state.faults_left -= 1;
                state.past.had_delay = true;
                state.hosts[host].is_suspended = true;
                not_exclusive(&mut state.hosts[host]);
            }
            Action::Resume(host) => state.hosts[host].is_suspended = false,
            Action::StoreDown => {
                state.faults_left -= 1;
                state.is_down = true;
            }
            Action::StoreUp => state.is_down = false,
            Action::LoseRecord(account) => {
                state.faults_left -= 1;
                self.lose(state, account, EMPTY);
            }
            Action::FailOver(account) => {
                state.faults_left -= 1;
                self.lose(state, account, state.previous[account]);
            }
        }
        self.forget_the_irrelevant(state);
    }

    /// Removes what no later step and no check depends on, so that equal futures are one state.
    fn forget_the_irrelevant(&self, state: &mut State) {
        let may_lose = self.bounds.kinds.losses && state.faults_left > 0;
        if !may_lose {
            state.previous = [EMPTY; ACCOUNTS];
        }
        for number in 0..self.bounds.hosts {
            let shared = state.store[self.account(number)];
            let is_done = self.is_done(&state.hosts[number]);
            let is_current = !self.rules.is_behind(shared, state.hosts[number].base);
            let host = &mut state.hosts[number];
            // A write that expects a record which never comes back has no effect.
            host.late.take_if(|late| !may_lose && late.expected != shared);
            host.reported_hold.take_if(|(_, until)| is_done || *until <= state.now);
            if is_done || host.reported_cooldown <= state.now {
                host.reported_cooldown = 0;
            }
            if is_done && !may_lose && host.sync != Sync::Standalone && is_current {
                // It only reads from here on.
                (host.base, host.sync, host.cooldown) = (shared, Sync::Synced, EMPTY);
            }
        }
    }
}

fn not_exclusive(host: &mut Host) {
    match &mut host.step {
        Step::Calling { is_exclusive, .. } => *is_exclusive = false,
        Step::Swapping(swap) => swap.is_prompt = false,
        Step::Idle | Step::Publishing => {}
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            now: 0,
            store: [EMPTY; ACCOUNTS],
            previous: [EMPTY; ACCOUNTS],
            cooldown: EMPTY,
            is_down: false,
            hosts: std::array::from_fn(|_| Host::started(0)),
            faults_left: self.bounds.faults,
            past: Past::default(),
            violation: None,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.violation.is_some() {
            return;
        }
        let kinds = self.bounds.kinds;
        let may_fail = state.faults_left > 0;
        if self.may_tick(state) {
            actions.push(Action::Tick);
        }
        for (number, host) in state.hosts.iter().enumerate().take(self.bounds.hosts) {
            let account = self.account(number);
            if host.late.is_some_and(|late| late.expected == state.store[account]) && !state.is_down {
                actions.push(Action::ApplyLate(number));
            }
            if host.is_suspended {
                actions.push(Action::Resume(number));
                continue;
            }
            if !state.is_down && matches!(host.step, Step::Idle | Step::Calling { .. }) {
                let has_changes =
                    host.sync == Sync::Standalone || self.rules.is_behind(state.store[account], host.base);
                if has_changes || !self.is_done(host) && host.base != state.store[account] {
                    actions.push(Action::Read(number));
                }
                if self.has_cooldown() && !self.is_done(host) && host.cooldown != state.cooldown {
                    actions.push(Action::ReadCooldown(number));
                }
            }
            match &host.step {
                Step::Idle if host.attempt < self.bounds.attempts => actions.push(Action::Begin(number)),
                Step::Idle => {}
                Step::Swapping(swap) => {
                    if state.is_down {
                        actions.push(Action::LoseAnswer { host: number, is_applied: false });
                    } else {
                        actions.push(Action::Answer(number));
                        if kinds.lost_answers && may_fail {
                            actions.push(Action::LoseAnswer { host: number, is_applied: false });
                            if swap.expected == state.store[account] {
                                actions.push(Action::LoseAnswer { host: number, is_applied: true });
                            }
                        }
                    }
                }
                Step::Calling { .. } => actions.extend([Action::Success(number), Action::RateLimit(number)]),
                Step::Publishing => {
                    if !state.is_down {
                        actions.push(Action::PublishCooldown(number));
                    }
                    if state.is_down || may_fail && kinds.lost_answers {
                        actions.push(Action::LoseAnswer { host: number, is_applied: false });
                    }
                }
            }
            if may_fail && kinds.crashes && (host.step != Step::Idle || host.base != EMPTY) {
                actions.push(Action::Crash(number));
            }
            if may_fail && kinds.suspensions && host.step != Step::Idle {
                actions.push(Action::Suspend(number));
            }
        }
        if state.is_down {
            actions.push(Action::StoreUp);
        } else if may_fail && kinds.outages {
            actions.push(Action::StoreDown);
        }
        if may_fail && kinds.losses {
            for account in 0..ACCOUNTS {
                let (record, previous) = (state.store[account], state.previous[account]);
                if record != EMPTY {
                    actions.push(Action::LoseRecord(account));
                }
                if previous != record && previous != EMPTY {
                    actions.push(Action::FailOver(account));
                }
            }
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = state.clone();
        self.apply(&mut next, action);
        (next != *state).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        macro_rules! never {
            ($($violation:ident),* $(,)?) => {
                vec![$(Property::always(Violation::$violation.property(), |_, state: &State| {
                    state.violation != Some(Violation::$violation)
                })),*]
            };
        }
        let mut properties = never![
            TwoCalls,
            CallUnderHold,
            CallUnderCooldown,
            OverBudget,
            OlderFence,
            OlderReadings,
            OlderRevision,
            CountedTwice,
            LostByMerge,
        ];
        properties.push(Property::always(AGREEMENT, Self::settles));
        properties
    }
}
