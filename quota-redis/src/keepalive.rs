//! Probes a connection that has waiters. The probe shows whether bytes still arrive, and whether the server still owns the
//! awaited documents. `subscriptions` and `subscription_task` receive the notices.

use std::sync::Weak;

use crate::client::Client;
use crate::connection::Connection;
use crate::key::Key;

/// Queries one awaited version per keepalive interval, until the connection is closed.
///
/// A frozen server or lost packets do not close a connection. Without the probe, a caller that only waits would miss every
/// write to the server that took over.
///
/// Periodically, it confirms to the waiters that no notice is missing, so that they need not read to detect a lost one.
pub(crate) async fn run(client: Weak<Client>, connection: Weak<Connection>) {
    let (mut probes, mut is_skipped) = (0_u32, false);
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
        let Some(key) = connection.subscriptions().next_awaited_key() else { continue };
        // Bytes that arrived a moment ago, such as a notice, prove the same as a reply. But never skip two probes in a row, because
        // only a probe finds a document that was deleted.
        is_skipped = !is_skipped && connection.take_received();
        let is_confirmed = is_skipped || probe(&client, &connection, &key).await;
        if !client.is_current(&key, &connection) {
            return connection.subscriptions().close();
        }
        probes = probes.wrapping_add(1);
        if is_confirmed && probes.is_multiple_of(PROBES_PER_CONFIRMATION) {
            connection.subscriptions().confirm();
        }
    }
}

/// Queries the version of a document. Returns whether the server replied.
async fn probe(client: &Client, connection: &Connection, key: &Key) -> bool {
    let query = connection.subscriptions().start_query(&key.channel, None);
    let version = client.current_version(key).await;
    // The reply itself must not replace the next probe.
    connection.take_received();
    match version {
        Ok(version) => {
            query.on_version(version);
            true
        }
        // A call on a broken connection has closed it already. A server that replies with an error is alive.
        Err(_) => false,
    }
}

/// With the default interval, a confirmation follows each half minute. That is less than the manager's poll interval.
const PROBES_PER_CONFIRMATION: u32 = 6;
