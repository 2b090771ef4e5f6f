//! Whether a connection on which callers only listen still carries anything, and still goes where their documents are.
//! Who listens is known to the board; what is listened for is kept up to date by keepers, see `subscription_task`.

use std::sync::Weak;

use crate::client::Client;
use crate::connection::Connection;

/// Asks for one of the versions that are waited for, now and then, until the connection is over.
///
/// A server that stands still, or packets that vanish, end no connection: those who only wait would wait on, and miss what is
/// written by way of the server that has taken over.
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
        // Where there are no notices, polls are a pulse.
        if connection.subscriptions().is_closed() || !connection.supports_push() {
            return;
        }
        let Some(key) = connection.subscriptions().random_awaited_key() else { continue };
        let query = connection.subscriptions().start_query(&key.channel, None);
        match client.current_version(&key).await {
            Ok(version) => query.on_version(version),
            // A call that shows that the connection is lost has ended it. A server that answers with an error is there.
            Err(_) => drop(query),
        }
        if !client.is_current(&key, &connection) {
            return connection.subscriptions().close();
        }
    }
}
