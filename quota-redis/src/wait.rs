//! Waiting until a document changes: joins those who wait for it on its connection, and starts what keeps that up to date.
//! What wakes them is in `board`; the two tasks are in `keeper` and `pulse`.

use std::sync::Arc;

use quota_core::Version;

use crate::calls::{Calls, Tries};
use crate::failure::Failure;
use crate::keeper::keep;
use crate::key::Key;
use crate::pulse::beat;
use crate::task;

/// Waits until the document may have moved past `seen`.
pub(crate) async fn wait(calls: &Arc<Calls>, key: &Key, seen: Option<Version>) -> Result<(), Failure> {
    let mut tries = Tries::default();
    loop {
        let home = calls.home(key).await?;
        let wire = home.wire().await?;
        wire.look_after(|| task::spawn(beat(Arc::downgrade(calls), Arc::downgrade(&wire))))?;
        let visit = wire.board().visit(key, |start| {
            task::spawn(keep(Arc::downgrade(calls), Arc::downgrade(&wire), key.clone(), start))
        })?;
        // The connection is over: something may have been missed.
        let Some(visit) = visit else { return Ok(()) };
        let Err(failure) = visit.news(seen).await else { return Ok(()) };
        drop(visit);
        calls.learn(&failure, &home, &wire, key);
        if !matches!(failure, Failure::Moved(_)) || !tries.may_go_on() {
            return Err(failure);
        }
    }
}
