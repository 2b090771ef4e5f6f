//! A wire between a client and a server that can lose what it carries.
//! It knows no protocol: it counts and drops bytes.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Carries bytes to a port of this machine and back, until it is told not to.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    swallow: Arc<AtomicUsize>,
    connections: Arc<AtomicUsize>,
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
        let proxy = Self { port: own, swallow: Arc::default(), connections: Arc::default() };
        let (swallow, connections) = (Arc::clone(&proxy.swallow), Arc::clone(&proxy.connections));
        // Its threads end with the process: a test's.
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else { continue };
                connections.fetch_add(1, Ordering::SeqCst);
                let _ = (client.set_nodelay(true), server.set_nodelay(true));
                let there = (client.try_clone().expect("a handle"), server.try_clone().expect("a handle"));
                thread::spawn(move || carry(there.0, there.1, None));
                let swallow = Arc::clone(&swallow);
                thread::spawn(move || carry(server, client, Some(&swallow)));
            }
        });
        proxy
    }

    /// The port to connect to.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// How many connections there have been.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Loses so many of the next answers, each with its connection.
    pub fn lose_answers(&self, count: usize) {
        self.swallow.store(count, Ordering::SeqCst);
    }
}

/// Carries one direction until either side ends, or an answer is to be lost.
fn carry(mut from: TcpStream, mut to: TcpStream, swallow: Option<&AtomicUsize>) {
    let mut buffer = [0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        let less = |count: usize| count.checked_sub(1);
        if swallow
            .is_some_and(|swallow| swallow.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_ok())
        {
            break;
        }
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}
