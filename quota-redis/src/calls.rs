//! One order, followed until there is an answer: to where its key is, and over a second connection if the first was lost.
//! What a caller is told of it is in `store`, and what wakes those who wait in `board`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use quota_core::{StoreKey, Version};

use crate::dial::{Dialer, NO_MASTER};
use crate::failure::Failure;
use crate::key::Key;
use crate::node::Node;
use crate::options::{Servers, Settings};
use crate::script::{Order, Outcome, Scripts};
use crate::servers::Routes;
use crate::wire::{Sent, Wire};

/// What all clones of a store, and its keepers, share.
#[derive(Debug)]
pub(crate) struct Calls {
    dialer: Arc<Dialer>,
    routes: Routes,
    scripts: Scripts,
}

/// What has been tried.
#[derive(Debug, Default)]
pub(crate) struct Tries {
    redirections: u32,
    again: bool,
}

/// An attempt that failed, and where.
type Failed = (Failure, Arc<Node>);

/// So many nodes may send us on to another one.
const MOST_REDIRECTIONS: u32 = 5;

impl Calls {
    pub(crate) fn new(dialer: Dialer, servers: &Servers) -> Self {
        let dialer = Arc::new(dialer);
        let routes = Routes::new(&dialer, servers);
        Self { dialer, routes, scripts: Scripts::new() }
    }

    pub(crate) fn settings(&self) -> &Settings {
        self.dialer.settings()
    }

    pub(crate) fn key(&self, name: &StoreKey) -> Key {
        Key::new(&self.settings().prefix, self.settings().database, name)
    }

    /// Carries out an order; `sent` says in the end whether a write may have been carried out although there is no answer.
    pub(crate) async fn carry_out(
        &self,
        key: &Key,
        order: &Order,
        sent: Sent<'_>,
    ) -> Result<Outcome, Failure> {
        let mut failed = None;
        // Mostly there is a connection, whose answer comes or is late: a timer for what else may be is set only then.
        if let Some((home, wire)) = self.routes.standing(key) {
            match self.attempt(&home, &wire, key, order, sent).await {
                Ok(outcome) => return Ok(outcome),
                Err(failure) => failed = Some((failure, home)),
            }
        }
        let settings = self.settings();
        let limit = settings.connect_timeout + settings.response_timeout;
        // Boxed, as is all that is seldom: what every swap carries about stays small.
        let pursuit = Box::pin(self.pursue(failed, key, order, sent));
        settings.clock.bounded(limit, pursuit).await.unwrap_or(Err(Failure::Late))
    }

    /// The node that a key is on.
    pub(crate) async fn home(&self, key: &Key) -> Result<Arc<Node>, Failure> {
        self.routes.home(key).await
    }

    /// Which version stands, for a keeper.
    pub(crate) async fn look(&self, key: &Key) -> Result<Option<Version>, Failure> {
        match self.carry_out(key, &Order::Look, &AtomicBool::new(false)).await? {
            Outcome::Version(version) => Ok(version),
            Outcome::Stands(_) | Outcome::Applied { .. } => Err(Failure::Lost),
        }
    }

    /// Whether this is the connection to where the key is.
    pub(crate) fn is_at_home(&self, key: &Key, wire: &Arc<Wire>) -> bool {
        self.routes.standing(key).is_some_and(|(_, standing)| Arc::ptr_eq(&standing, wire))
    }

    async fn pursue(
        &self,
        mut failed: Option<Failed>,
        key: &Key,
        order: &Order,
        sent: Sent<'_>,
    ) -> Result<Outcome, Failure> {
        let mut tries = Tries::default();
        loop {
            if let Some((failure, at)) = failed.take() {
                self.follow(failure, &at, key, &mut tries).await?;
            }
            let home = self.routes.home(key).await?;
            let attempt = match home.wire().await {
                Ok(wire) => self.attempt(&home, &wire, key, order, sent).await,
                Err(failure) => Err(failure),
            };
            match attempt {
                Ok(outcome) => return Ok(outcome),
                Err(failure) => failed = Some((failure, home)),
            }
        }
    }

    /// Makes ready for another try, if there is to be one: a read may be repeated, and so may a swap, whose version tells
    /// that it has been carried out already.
    async fn follow(
        &self,
        failure: Failure,
        at: &Arc<Node>,
        key: &Key,
        tries: &mut Tries,
    ) -> Result<(), Failure> {
        let may_try = match &failure {
            Failure::Moved(_) => tries.may_go_on(),
            Failure::Lost | Failure::Unsent => {
                self.routes.doubt(key, at).await;
                tries.may_try_again()
            }
            // The sentinels name another master by now, or soon.
            Failure::ReadOnly if at.is_behind_sentinels() => {
                return if tries.may_try_again() { Ok(()) } else { Err(NO_MASTER) };
            }
            // The node may be gone for good, or a replica by now, and another one have taken its slots.
            Failure::Away { .. } | Failure::NotNow(_) | Failure::ClusterDown | Failure::ReadOnly
                if self.routes.is_cluster() =>
            {
                self.routes.doubt(key, at).await;
                !Arc::ptr_eq(at, &self.routes.home(key).await?) && tries.may_try_again()
            }
            _ => false,
        };
        if may_try { Ok(()) } else { Err(failure) }
    }

    async fn attempt(
        &self,
        home: &Arc<Node>,
        wire: &Arc<Wire>,
        key: &Key,
        order: &Order,
        sent: Sent<'_>,
    ) -> Result<Outcome, Failure> {
        let trip = wire.board().trip(&key.channel, order.version());
        let (outcome, was_here) = match wire.carry_out(&self.scripts, order, key, false, sent).await {
            Err(Failure::Ask(name)) => {
                (Box::pin(self.ask_elsewhere(wire, &name, key, order, sent)).await, false)
            }
            outcome => (outcome, true),
        };
        match &outcome {
            Ok(Outcome::Stands(reading)) => trip.stands(reading.version()),
            Ok(Outcome::Version(version)) => trip.stands(*version),
            Ok(Outcome::Applied { told }) => {
                if let Some(version) = order.version() {
                    trip.wrote(version, *told && was_here);
                }
            }
            Err(failure) => {
                if failure.is_ambiguous() {
                    sent.store(true, Ordering::Relaxed);
                }
                drop(trip);
                self.learn(failure, home, wire, key);
            }
        }
        outcome
    }

    /// Asks a node that is taking over the slot, this once.
    async fn ask_elsewhere(
        &self,
        wire: &Wire,
        name: &str,
        key: &Key,
        order: &Order,
        sent: Sent<'_>,
    ) -> Result<Outcome, Failure> {
        let node = self.routes.named(wire.address(), name).ok_or(Failure::Lost)?;
        let there = node.wire().await?;
        let outcome = there.carry_out(&self.scripts, order, key, true, sent).await;
        if let Err(failure) = &outcome
            && there.is_ended_by(failure)
        {
            node.lose(&there);
        }
        outcome
    }

    /// What a failure says about the servers.
    pub(crate) fn learn(&self, failure: &Failure, home: &Node, wire: &Arc<Wire>, key: &Key) {
        if wire.is_ended_by(failure) || home.may_lead_elsewhere(failure, wire) {
            home.lose(wire);
        } else if let Failure::Moved(name) = failure
            && let Some(node) = self.routes.named(wire.address(), name)
        {
            self.routes.moved(key, node);
        }
    }
}

impl Tries {
    /// Whether one more node may be gone to.
    pub(crate) fn may_go_on(&mut self) -> bool {
        self.redirections += 1;
        self.redirections <= MOST_REDIRECTIONS
    }

    /// Whether it may be tried once more: once.
    fn may_try_again(&mut self) -> bool {
        !std::mem::replace(&mut self.again, true)
    }
}
