//! The state that the processes of one simulation share: the store, the provider, the machines, and the numbers of
//! managers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::machine::Machine;
use crate::provider::Provider;
use crate::store::Server;
use crate::world::World;

/// The environment of a process.
#[derive(Debug)]
pub(crate) struct Environment {
    pub(crate) world: Arc<World>,
    pub(crate) server: Arc<Server>,
    pub(crate) provider: Arc<Provider>,
    pub(crate) machines: Vec<Arc<Machine>>,
    managers: AtomicUsize,
}

impl Environment {
    pub(crate) fn new(world: &Arc<World>) -> Arc<Self> {
        Arc::new(Self {
            world: Arc::clone(world),
            server: Server::new(Arc::clone(world)),
            provider: Provider::new(Arc::clone(world)),
            machines: world.plan.machines.iter().map(|plan| Machine::start(world, *plan)).collect(),
            managers: AtomicUsize::new(0),
        })
    }

    /// The number of the next manager.
    pub(crate) fn next_manager(&self) -> usize {
        self.managers.fetch_add(1, Ordering::Relaxed)
    }
}
