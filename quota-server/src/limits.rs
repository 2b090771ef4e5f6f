//! The limits on what a client can use up: time, memory and connections.

use std::time::Duration;

/// The limits of a server. The defaults are far above what a client needs.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// The time for the headers of a request, also after the previous one: an idle connection is closed after it.
    pub header_timeout: Duration,
    /// The time for the response to a request.
    pub request_timeout: Duration,
    /// The time in which a client must accept some bytes of a response.
    pub write_timeout: Duration,
    /// The time for a TLS handshake.
    pub handshake_timeout: Duration,
    /// How long responses in flight may take after the server was asked to stop.
    pub shutdown_timeout: Duration,
    /// The number of concurrent connections. Further ones wait in the queue of the system.
    pub max_connections: usize,
    /// The number of concurrent streams of events; at most half of the connections.
    pub max_event_streams: usize,
    /// The size of all headers, in bytes.
    pub max_header_bytes: usize,
    /// The number of headers.
    pub max_headers: usize,
    /// The size of a request body, in bytes.
    pub max_body_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_timeout: Duration::from_secs(15),
            request_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(15),
            handshake_timeout: Duration::from_secs(10),
            shutdown_timeout: Duration::from_secs(10),
            max_connections: 8192,
            max_event_streams: 2048,
            max_header_bytes: 32 * 1024,
            max_headers: 64,
            max_body_bytes: 64 * 1024,
        }
    }
}
