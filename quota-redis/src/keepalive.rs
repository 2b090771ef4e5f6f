//! Probes a connection that has waiters. The probe shows whether bytes still arrive, and whether the server still owns the
//! awaited documents. `subscriptions` and `subscription_task` receive the notices.

use std::sync::Weak;

use crate::client::Client;
use crate::connection::Connection;

/// Queries one awaited version per keepalive interval, until the connection is closed.
///
/// A frozen server or lost packets do not close a connection. Without the probe, a caller that only waits would miss every
/// write to the server that took over.
pub(crate) async fn run(client: Weak<Client>, connection: Weak<Connection>) {
    loop {
        let Some(pause) = client.upgrade().map(|client| {
            let settings = client.settings();
            let pause = settings.keepalive_interval.mul_f64(0.75 + fastrand::f64() / 2.0);
            let clock = settings.clock.clone();
            async move { clock.sleep(pause).await }
        }) else {
            return;
        };
        pause.await;
        let (Some(client), Some(connection)) = (client.upgrade(), connection.upgrade()) else { return };
        // Without notices, the polls of `subscription_task` probe the connection.
        if connection.subscriptions().is_closed() || !connection.supports_push() {
            return;
        }
        let Some(key) = connection.subscriptions().random_awaited_key() else { continue };
        let query = connection.subscriptions().start_query(&key.channel, None);
        match client.current_version(&key).await {
            Ok(version) => query.on_version(version),
            // A call on a broken connection has closed it already. A server that replies with an error is alive.
            Err(_) => drop(query),
        }
        if !client.is_current(&key, &connection) {
            return connection.subscriptions().close();
        }
    }
}
