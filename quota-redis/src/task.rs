//! A task that ends with its owner: the one place that spawns.
//! What tasks do is in `node`, `dial` and `keeper`.

use std::future::Future;

use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use crate::failure::Failure;

/// A task of its own, stopped when this is dropped.
#[derive(Debug)]
pub(crate) struct Task(AbortHandle);

impl Task {
    /// # Errors
    ///
    /// If this is not called on tokio.
    pub(crate) fn spawn(work: impl Future<Output = ()> + Send + 'static) -> Result<Self, Failure> {
        let runtime =
            Handle::try_current().map_err(|error| Failure::away("there is no tokio runtime", error))?;
        Ok(Self(runtime.spawn(work).abort_handle()))
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}
