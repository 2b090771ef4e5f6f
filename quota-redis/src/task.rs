//! Spawns tasks that end with their owner. The tasks themselves are in `node`, `connector`, `subscription_task` and
//! `keepalive`.

use std::future::Future;

use tokio::runtime::Handle;
use tokio_util::task::AbortOnDropHandle;

use crate::error::Error;

/// A task that is aborted when its owner drops this handle.
pub(crate) type Task = AbortOnDropHandle<()>;

/// Spawns a task on the current runtime.
///
/// # Errors
///
/// If the caller is outside a tokio runtime.
pub(crate) fn spawn(work: impl Future<Output = ()> + Send + 'static) -> Result<Task, Error> {
    let runtime =
        Handle::try_current().map_err(|error| Error::unreachable("there is no tokio runtime", error))?;
    Ok(AbortOnDropHandle::new(runtime.spawn(work)))
}
