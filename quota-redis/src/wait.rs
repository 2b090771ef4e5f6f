//! Waits until a document changes: adds a waiter to the subscriptions of a connection, and starts the two background tasks.
//! `subscriptions` wakes the waiter; the tasks are in `subscription_task` and `keepalive`.

use std::sync::Arc;

use quota_core::store::{Notice, Version};

use crate::client::{Client, RetryBudget};
use crate::error::Error;
use crate::keepalive;
use crate::key::Key;
use crate::subscription_task;
use crate::task;

/// Waits until the document may have a version other than `seen`. Safe to cancel.
pub(crate) async fn wait(client: &Arc<Client>, key: &Key, seen: Option<Version>) -> Result<Notice, Error> {
    let mut budget = RetryBudget::default();
    loop {
        let node = client.node_for(key).await?;
        let connection = node.connection().await?;
        connection.ensure_keepalive(|| {
            task::spawn(keepalive::run(Arc::downgrade(client), Arc::downgrade(&connection)))
        })?;
        let waiter = connection.subscriptions().add_waiter(key, |start| {
            task::spawn(subscription_task::run(
                Arc::downgrade(client),
                Arc::downgrade(&connection),
                key.clone(),
                start,
            ))
        })?;
        // The connection is closed, so a change may have been missed.
        let Some(waiter) = waiter else { return Ok(Notice::default()) };
        let error = match waiter.changed(seen).await {
            Ok(notice) => return Ok(notice),
            Err(error) => error,
        };
        drop(waiter);
        client.note_error(&error, &node, &connection, key);
        if !matches!(error, Error::Moved(_)) || !budget.take_redirect() {
            return Err(error);
        }
    }
}
