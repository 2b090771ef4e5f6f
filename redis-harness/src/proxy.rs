//! A TCP proxy that can close connections, stop, throttle, delay responses, or drop them. It forwards bytes and parses no
//! protocol.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

/// Forwards bytes between its clients and a port of this machine, with the faults that a test sets.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
}

/// The state that all connections of a proxy share.
#[derive(Debug, Default)]
struct Shared {
    swallow: AtomicUsize,
    state: Mutex<State>,
    restored: Condvar,
}

#[derive(Debug, Default)]
struct State {
    fault: Option<Fault>,
    /// The delay of each response.
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
    /// Creates a proxy in front of the server on `port`.
    ///
    /// # Panics
    ///
    /// If no port is free.
    #[must_use]
    pub fn new(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let own = listener.local_addr().expect("it is bound").port();
        let shared = Arc::<Shared>::default();
        let proxy = Self { port: own, shared: Arc::clone(&shared) };
        // The threads end with the test process.
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                #[expect(clippy::disallowed_methods, reason = "the arrival times are the result")]
                shared.state().tries.push(Instant::now());
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else { continue };
                let _ = (client.set_nodelay(true), server.set_nodelay(true));
                {
                    let mut state = shared.state();
                    if state.fault == Some(Fault::Cut) {
                        continue;
                    }
                    state.open.extend([&client, &server].map(|end| end.try_clone().expect("a handle")));
                }
                let there = (client.try_clone().expect("a handle"), server.try_clone().expect("a handle"));
                Shared::connect(&shared, there, false);
                Shared::connect(&shared, (server, client), true);
            }
        });
        proxy
    }

    /// The port to connect to.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The URL `redis://127.0.0.1:port`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// The number of connection attempts.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.state().tries.len()
    }

    /// The times of the connection attempts.
    #[must_use]
    pub fn attempts(&self) -> Vec<Instant> {
        self.shared.state().tries.clone()
    }

    /// Drops the next `count` responses, and closes the connections that they belong to.
    pub fn drop_responses(&self, count: usize) {
        self.shared.swallow.store(count, Ordering::SeqCst);
    }

    /// Closes all connections, and each new one at once, until [`restore`](Self::restore).
    pub fn cut(&self) {
        self.set_fault(Some(Fault::Cut));
        for end in self.shared.state().open.drain(..) {
            let _ = end.shutdown(Shutdown::Both);
        }
    }

    /// Accepts connections and bytes but forwards nothing until [`restore`](Self::restore), which also delivers the held bytes.
    pub fn black_hole(&self) {
        self.set_fault(Some(Fault::Silent));
    }

    /// Forwards one byte per second in each direction, until [`restore`](Self::restore).
    pub fn throttle(&self) {
        self.set_fault(Some(Fault::Slow));
    }

    /// Delays each response by this time, like a slow server, until [`restore`](Self::restore). Responses that arrive together
    /// share one delay.
    pub fn delay_responses(&self, by: Duration) {
        self.shared.state().delay = by;
    }

    /// Forwards everything again, without delay.
    pub fn restore(&self) {
        self.shared.state().delay = Duration::ZERO;
        self.set_fault(None);
    }

    fn set_fault(&self, fault: Option<Fault>) {
        self.shared.state().fault = fault;
        self.shared.restored.notify_all();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Forwards one direction with two threads, so that delayed bytes do not delay the receipt of later ones.
    fn connect(shared: &Arc<Self>, (from, to): (TcpStream, TcpStream), answers: bool) {
        let (sender, receiver) = sync_channel(1024);
        let ends = (from.try_clone().expect("a handle"), to);
        let (reader, writer) = (Arc::clone(shared), Arc::clone(shared));
        thread::spawn(move || reader.receive(from, &sender, answers));
        thread::spawn(move || writer.deliver(ends, &receiver, answers));
    }

    /// Reads until the sender closes, or until a response must be dropped.
    #[expect(clippy::disallowed_methods, reason = "a delay counts from the arrival")]
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

    /// Writes the received bytes, until either side closes.
    fn deliver(
        &self,
        (from, mut to): (TcpStream, TcpStream),
        received: &Receiver<(Instant, Vec<u8>)>,
        answers: bool,
    ) {
        'shared: for (at, bytes) in received {
            if answers {
                self.wait_until_due(at);
            }
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let now = if self.may_forward_all() { rest.len() } else { 1 };
                if to.write_all(&rest[..now]).is_err() {
                    break 'shared;
                }
                rest = &rest[now..];
            }
        }
        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
    }

    /// Waits until the delay for bytes that arrived at this time is over.
    #[expect(clippy::disallowed_methods, reason = "a delay counts from the arrival")]
    fn wait_until_due(&self, at: Instant) {
        let mut state = self.state();
        while let Some(rest) =
            (at + state.delay).checked_duration_since(Instant::now()).filter(|rest| !rest.is_zero())
        {
            self.restored.wait_for(&mut state, rest);
        }
    }

    /// Waits until bytes may be forwarded. Returns true for all bytes, and false for one.
    fn may_forward_all(&self) -> bool {
        let silent = |state: &mut State| state.fault == Some(Fault::Silent);
        let mut state = self.state();
        self.restored.wait_while(&mut state, silent);
        let slow = |state: &mut State| state.fault == Some(Fault::Slow);
        !self.restored.wait_while_for(&mut state, slow, Duration::from_secs(1)).timed_out()
    }
}
