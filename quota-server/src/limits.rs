//! The limits on a client's use of time, memory and connections.

use std::time::Duration;

/// The limits of a server. The defaults are far above what a client needs.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// The timeout for receiving the headers of a request. It includes the wait for a further request on an idle
    /// connection.
    pub header_timeout: Duration,
    /// The timeout for the response to a request.
    pub request_timeout: Duration,
    /// The timeout for a client to accept further bytes of a response.
    pub write_timeout: Duration,
    /// The timeout of a TLS handshake.
    pub handshake_timeout: Duration,
    /// The timeout for responses in flight after the server begins to stop.
    pub shutdown_timeout: Duration,
    /// The maximum number of concurrent connections. Further ones wait in the accept queue.
    pub max_connections: usize,
    /// The maximum number of concurrent event streams; at most half of the connections.
    pub max_event_streams: usize,
    /// The maximum size of all headers, in bytes.
    pub max_header_bytes: usize,
    /// The maximum number of headers.
    pub max_headers: usize,
    /// The maximum size of a request body, in bytes.
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
