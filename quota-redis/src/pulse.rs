//! Whether a connection on which callers only listen still carries anything, and still goes where their documents are.
//! Who listens is known to the board; what is listened for is kept up to date by keepers, see `keeper`.

use std::sync::Weak;

use crate::calls::Calls;
use crate::wire::Wire;

/// Asks for one of the versions that are waited for, now and then, until the connection is over.
///
/// A server that stands still, or packets that vanish, end no connection: those who only wait would wait on, and miss what is
/// written by way of the server that has taken over.
pub(crate) async fn beat(calls: Weak<Calls>, wire: Weak<Wire>) {
    loop {
        let Some(pause) = calls.upgrade().map(|calls| {
            let settings = calls.settings();
            let pause = settings.check_every.mul_f64(0.75 + fastrand::f64() / 2.0);
            let clock = settings.clock.clone();
            async move { clock.sleep(pause).await }
        }) else {
            return;
        };
        pause.await;
        let (Some(calls), Some(wire)) = (calls.upgrade(), wire.upgrade()) else { return };
        // Where there are no notices, polls are a pulse.
        if wire.board().is_over() || !wire.hears() {
            return;
        }
        let Some(key) = wire.board().somebody_waits() else { continue };
        let trip = wire.board().trip(&key.channel, None);
        match calls.look(&key).await {
            Ok(version) => trip.stands(version),
            // A call that shows that the connection is lost has ended it. A server that answers with an error is there.
            Err(_) => drop(trip),
        }
        if !calls.is_at_home(&key, &wire) {
            return wire.board().end();
        }
    }
}
