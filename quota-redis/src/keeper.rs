//! Keeps one topic up to date for as long as somebody waits for it: by a subscription, or, where there can be none, by polls.
//! What it finds goes to the board; who is woken by it is decided there.

use std::sync::{Arc, Weak};

use crate::board::{Shelved, Start};
use crate::calls::Calls;
use crate::failure::Failure;
use crate::key::Key;
use crate::wire::Wire;

/// Works until nobody has waited for long, the connection is over, or it fails.
pub(crate) async fn keep(calls: Weak<Calls>, wire: Weak<Wire>, key: Key, mut start: Start) {
    loop {
        let Some((pause, hears)) = refresh(&calls, &wire, &key, start).await else { return };
        start = Start::Anew;
        let Some(board) = wire.upgrade().map(|wire| Arc::clone(wire.board())) else { return };
        if !hears {
            pause.poll().await;
            if board.remove(&key.channel) {
                return;
            }
            continue;
        }
        board.deserted(&key.channel, || pause.linger()).await;
        let Some(wire) = wire.upgrade() else { return };
        if wire.is_sharded() {
            // Giving it up would be answered by a message that cannot be told from the one about a slot that has moved.
            match board.shelve(&key.channel) {
                Shelved::Yes => return,
                Shelved::TooMany => return board.end(),
                Shelved::Wanted => start = Start::Standing,
            }
        } else if wire.unsubscribe(&key).await.is_err() {
            return board.end();
        } else if board.remove(&key.channel) {
            return;
        }
    }
}

/// How long to wait, by the store's clock.
struct Pause(Weak<Calls>);

impl Pause {
    async fn poll(&self) {
        if let Some(sleep) = self.0.upgrade().map(|calls| {
            let settings = calls.settings();
            let pause = settings.poll_every.mul_f64(0.75 + fastrand::f64() / 2.0);
            let clock = settings.clock.clone();
            async move { clock.sleep(pause).await }
        }) {
            sleep.await;
        }
    }

    async fn linger(&self) {
        if let Some(sleep) = self.0.upgrade().map(|calls| {
            let (clock, linger) = (calls.settings().clock.clone(), calls.settings().linger);
            async move { clock.sleep(linger).await }
        }) {
            sleep.await;
        }
    }
}

/// Subscribes if that is possible, and looks the version up. `None` if this is the end; else whether notices come.
async fn refresh(calls: &Weak<Calls>, wire: &Weak<Wire>, key: &Key, start: Start) -> Option<(Pause, bool)> {
    let pause = Pause(Weak::clone(calls));
    if start == Start::Standing {
        return Some((pause, true));
    }
    let (calls, wire) = (calls.upgrade()?, wire.upgrade()?);
    let fail = |failure: Failure| {
        let is_over = wire.is_ended_by(&failure);
        wire.board().fail(&key.channel, failure);
        if is_over {
            wire.board().end();
        }
    };
    if wire.hears()
        && let Err(failure) = wire.subscribe(key).await
    {
        if !failure.refuses_notices() {
            fail(failure);
            return None;
        }
        wire.stop_hearing();
    }
    let trip = wire.board().trip(&key.channel, None);
    match calls.look(key).await {
        Ok(version) => trip.stands(version),
        Err(failure) => {
            drop(trip);
            fail(failure);
            return None;
        }
    }
    Some((pause, wire.hears()))
}
