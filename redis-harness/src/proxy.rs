//! A wire between a client and a server that can be cut, fall silent, drag, delay answers, or lose what it carries.
//! It knows no protocol: it counts, holds back and drops bytes.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

/// Carries bytes to a port of this machine and back, until it is told not to.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    wire: Arc<Wire>,
}

/// What all connections of a proxy share.
#[derive(Debug, Default)]
struct Wire {
    swallow: AtomicUsize,
    state: Mutex<State>,
    mended: Condvar,
}

#[derive(Debug, Default)]
struct State {
    fault: Option<Fault>,
    /// By how much answers are delayed.
    delay: Duration,
    tries: Vec<Instant>,
    open: Vec<TcpStream>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Cut,
    Silent,
    Slow,
}

impl Proxy {
    /// A proxy before the server on `port`.
    ///
    /// # Panics
    ///
    /// If no port is free.
    #[must_use]
    pub fn before(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let own = listener.local_addr().expect("it is bound").port();
        let wire = Arc::<Wire>::default();
        let proxy = Self { port: own, wire: Arc::clone(&wire) };
        // Its threads end with the process: a test's.
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                #[expect(clippy::disallowed_methods, reason = "when somebody came is what is asked for")]
                wire.state().tries.push(Instant::now());
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else { continue };
                let _ = (client.set_nodelay(true), server.set_nodelay(true));
                {
                    let mut state = wire.state();
                    if state.fault == Some(Fault::Cut) {
                        continue;
                    }
                    state.open.extend([&client, &server].map(|end| end.try_clone().expect("a handle")));
                }
                let there = (client.try_clone().expect("a handle"), server.try_clone().expect("a handle"));
                Wire::connect(&wire, there, false);
                Wire::connect(&wire, (server, client), true);
            }
        });
        proxy
    }

    /// The port to connect to.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `redis://127.0.0.1:port`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// How many connections were tried.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.wire.state().tries.len()
    }

    /// When connections were tried.
    #[must_use]
    pub fn tries(&self) -> Vec<Instant> {
        self.wire.state().tries.clone()
    }

    /// Loses so many of the next answers, each with its connection.
    pub fn lose_answers(&self, count: usize) {
        self.wire.swallow.store(count, Ordering::SeqCst);
    }

    /// Ends all connections, and every new one at once, until [`heal`](Self::heal).
    pub fn cut(&self) {
        self.turn_to(Some(Fault::Cut));
        for end in self.wire.state().open.drain(..) {
            let _ = end.shutdown(Shutdown::Both);
        }
    }

    /// Takes connections and bytes and carries nothing, until [`heal`](Self::heal); then what was held back arrives.
    pub fn black_hole(&self) {
        self.turn_to(Some(Fault::Silent));
    }

    /// Carries one byte a second in each direction, until [`heal`](Self::heal).
    pub fn drag(&self) {
        self.turn_to(Some(Fault::Slow));
    }

    /// Delays each answer by this much, as a slow server does, until [`heal`](Self::heal). Answers keep their distance: many that
    /// come at once are all late by this much.
    pub fn delay_answers(&self, by: Duration) {
        self.wire.state().delay = by;
    }

    /// Carries everything again, and at once.
    pub fn heal(&self) {
        self.wire.state().delay = Duration::ZERO;
        self.turn_to(None);
    }

    fn turn_to(&self, fault: Option<Fault>) {
        self.wire.state().fault = fault;
        self.wire.mended.notify_all();
    }
}

impl Wire {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Carries one direction, by a thread at each end: one that delays what has come must not delay what comes.
    fn connect(wire: &Arc<Self>, (from, to): (TcpStream, TcpStream), answers: bool) {
        let (sender, receiver) = sync_channel(1024);
        let ends = (from.try_clone().expect("a handle"), to);
        let (reader, writer) = (Arc::clone(wire), Arc::clone(wire));
        thread::spawn(move || reader.receive(from, &sender, answers));
        thread::spawn(move || writer.deliver(ends, &receiver, answers));
    }

    /// Reads until the sender ends, or an answer is to be lost.
    #[expect(clippy::disallowed_methods, reason = "when bytes came is what a delay counts from")]
    fn receive(&self, mut from: TcpStream, to: &SyncSender<(Instant, Vec<u8>)>, answers: bool) {
        let mut buffer = [0; 64 * 1024];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            let less = |count: usize| count.checked_sub(1);
            if answers && self.swallow.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_ok() {
                break;
            }
            if to.send((Instant::now(), buffer[..count].to_vec())).is_err() {
                break;
            }
        }
    }

    /// Writes what was read, until either side ends.
    fn deliver(
        &self,
        (from, mut to): (TcpStream, TcpStream),
        received: &Receiver<(Instant, Vec<u8>)>,
        answers: bool,
    ) {
        'wire: for (at, bytes) in received {
            if answers {
                self.wait_until_due(at);
            }
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let now = if self.passes() { rest.len() } else { 1 };
                if to.write_all(&rest[..now]).is_err() {
                    break 'wire;
                }
                rest = &rest[now..];
            }
        }
        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
    }

    /// Waits until what came at this time is late enough.
    #[expect(clippy::disallowed_methods, reason = "a delay is counted from when bytes came")]
    fn wait_until_due(&self, at: Instant) {
        let mut state = self.state();
        while let Some(rest) =
            (at + state.delay).checked_duration_since(Instant::now()).filter(|rest| !rest.is_zero())
        {
            self.mended.wait_for(&mut state, rest);
        }
    }

    /// Waits until something may pass: everything (`true`), or one byte.
    fn passes(&self) -> bool {
        let silent = |state: &mut State| state.fault == Some(Fault::Silent);
        let mut state = self.state();
        self.mended.wait_while(&mut state, silent);
        let slow = |state: &mut State| state.fault == Some(Fault::Slow);
        !self.mended.wait_while_for(&mut state, slow, Duration::from_secs(1)).timed_out()
    }
}
