//! What the processes of one simulation share: the store, the provider, and the numbers of their managers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::outage::MachineFile;
use crate::provider::Provider;
use crate::store::Server;
use crate::world::World;

/// What surrounds a process.
#[derive(Debug)]
pub(crate) struct Environment {
    pub(crate) world: Arc<World>,
    pub(crate) server: Arc<Server>,
    pub(crate) provider: Arc<Provider>,
    managers: AtomicUsize,
    outage_files: Mutex<BTreeMap<usize, Arc<MachineFile>>>,
}

impl Environment {
    pub(crate) fn new(world: &Arc<World>) -> Arc<Self> {
        Arc::new(Self {
            world: Arc::clone(world),
            server: Server::new(Arc::clone(world)),
            provider: Provider::new(Arc::clone(world)),
            managers: AtomicUsize::new(0),
            outage_files: Mutex::default(),
        })
    }

    /// The file for outages on the machine of a process.
    pub(crate) fn outage_file(&self, process: usize) -> Arc<MachineFile> {
        let machine = process / PROCESSES_OF_A_MACHINE;
        let new = || MachineFile::new(&self.world.clock);
        Arc::clone(self.outage_files.lock().entry(machine).or_insert_with(new))
    }

    /// The number of the next manager.
    pub(crate) fn next_manager(&self) -> usize {
        self.managers.fetch_add(1, Ordering::Relaxed)
    }
}

/// So many processes share a machine.
const PROCESSES_OF_A_MACHINE: usize = 4;
