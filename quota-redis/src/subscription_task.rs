//! The task that keeps the version of one document current while it has waiters, through a subscription or by polling.
//! `subscriptions` decides which waiters to wake.

use std::sync::{Arc, Weak};

use crate::client::Client;
use crate::connection::Connection;
use crate::error::Error;
use crate::key::Key;
use crate::subscriptions::{Parked, StartFrom};

/// Runs until the last waiter has been gone for `unsubscribe_after`, the connection is closed, or the subscription fails.
pub(crate) async fn run(client: Weak<Client>, connection: Weak<Connection>, key: Key, mut start: StartFrom) {
    loop {
        let Some((pause, supports_push)) = subscribe_and_query(&client, &connection, &key, start).await
        else {
            return;
        };
        start = StartFrom::Nothing;
        let Some(subscriptions) =
            connection.upgrade().map(|connection| Arc::clone(connection.subscriptions()))
        else {
            return;
        };
        if !supports_push {
            pause.poll().await;
            if subscriptions.remove_if_idle(&key.channel) {
                return;
            }
            continue;
        }
        subscriptions.wait_idle(&key.channel, || pause.unsubscribe_after()).await;
        let Some(connection) = connection.upgrade() else { return };
        if connection.is_sharded() {
            // The reply to SUNSUBSCRIBE looks the same as the message about a slot that has moved. So a connection to a cluster
            // never unsubscribes.
            match subscriptions.park(&key.channel) {
                Parked::Yes => return,
                Parked::TooMany => return subscriptions.close(),
                Parked::Wanted => start = StartFrom::Subscribed,
            }
        } else if connection.unsubscribe(&key).await.is_err() {
            return subscriptions.close();
        } else if subscriptions.remove_if_idle(&key.channel) {
            return;
        }
    }
}

/// The pauses of the task, measured by the store's clock.
struct Delays(Weak<Client>);

impl Delays {
    async fn poll(&self) {
        if let Some(sleep) = self.0.upgrade().map(|client| {
            let settings = client.settings();
            let pause = settings.poll_interval.mul_f64(0.75 + fastrand::f64() / 2.0);
            let clock = settings.clock.clone();
            async move { clock.sleep(pause).await }
        }) {
            sleep.await;
        }
    }

    async fn unsubscribe_after(&self) {
        if let Some(sleep) = self.0.upgrade().map(|client| {
            let (clock, unsubscribe_after) =
                (client.settings().clock.clone(), client.settings().unsubscribe_after);
            async move { clock.sleep(unsubscribe_after).await }
        }) {
            sleep.await;
        }
    }
}

/// Subscribes if possible, and queries the version. Returns whether notices arrive, or `None` if the task must end.
async fn subscribe_and_query(
    client: &Weak<Client>,
    connection: &Weak<Connection>,
    key: &Key,
    start: StartFrom,
) -> Option<(Delays, bool)> {
    let pause = Delays(Weak::clone(client));
    if start == StartFrom::Subscribed {
        return Some((pause, true));
    }
    let (client, connection) = (client.upgrade()?, connection.upgrade()?);
    let fail = |error: Error| {
        let is_closed = connection.is_broken_by(&error);
        connection.subscriptions().fail(&key.channel, error);
        if is_closed {
            connection.subscriptions().close();
        }
    };
    if connection.supports_push()
        && let Err(error) = connection.subscribe(key).await
    {
        if !error.rejects_subscriptions() {
            fail(error);
            return None;
        }
        connection.disable_push();
    }
    let query = connection.subscriptions().start_query(&key.channel, None);
    match client.current_version(key).await {
        Ok(version) => query.on_version(version),
        Err(error) => {
            drop(query);
            fail(error);
            return None;
        }
    }
    Some((pause, connection.supports_push()))
}
