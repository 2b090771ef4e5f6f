//! A stream whose writes wait for one tick of the scheduler, so that concurrent callers share a packet. Received bytes
//! reset the watchdog. Connections use `TCP_NODELAY`; without the delay, each concurrent caller would send its own
//! packet. It is hand-written because no library delays a write by exactly one tick. With 64 callers it raised the call
//! rate from 0.76 to 0.99 of the bare client's.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::watchdog::Watchdog;

/// A stream that yields once before each write, and reports received bytes to the watchdog.
pub(crate) struct WriteCoalescer<S> {
    stream: S,
    has_yielded: bool,
    watchdog: Arc<Watchdog>,
}

impl<S> WriteCoalescer<S> {
    pub(crate) fn new(stream: S, watchdog: Arc<Watchdog>) -> Self {
        Self { stream, has_yielded: false, watchdog }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WriteCoalescer<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.watchdog.received();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WriteCoalescer<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if !self.has_yielded {
            self.has_yielded = true;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, bytes));
        self.has_yielded = false;
        Poll::Ready(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn coalescer<S>(stream: S) -> WriteCoalescer<S> {
        let timeout = std::time::Duration::from_millis(500);
        WriteCoalescer::new(stream, Arc::new(Watchdog::new(quota_core::Clock::system(), timeout)))
    }

    #[tokio::test]
    async fn all_written_bytes_arrive() {
        let (here, mut there) = tokio::io::duplex(7);
        let mut here = coalescer(here);
        let sent: Vec<u8> = (0..=255).collect();

        let copy = sent.clone();
        let writing = async move {
            here.write_all(&copy).await.unwrap();
            here.shutdown().await.unwrap();
        };
        let mut received = Vec::new();
        let (_, read) = tokio::join!(writing, there.read_to_end(&mut received));

        read.unwrap();
        assert_eq!(received, sent);
    }

    #[tokio::test]
    async fn a_write_yields_to_other_tasks_first() {
        let (here, _there) = tokio::io::duplex(64);
        let mut here = coalescer(here);
        let has_run = std::cell::Cell::new(false);

        let write = async {
            here.write_all(b"x").await.unwrap();
            assert!(has_run.get());
        };
        tokio::join!(write, async { has_run.set(true) });
    }

    #[tokio::test(start_paused = true)]
    async fn a_received_byte_resets_the_watchdog() {
        let clock = quota_core::Clock::virtual_at("2026-11-01T00:00:00Z".parse().unwrap());
        let timeout = std::time::Duration::from_millis(500);
        let watchdog = Arc::new(Watchdog::new(clock.clone(), timeout));
        let (here, mut there) = tokio::io::duplex(64);
        let mut here = WriteCoalescer::new(here, Arc::clone(&watchdog));
        watchdog.sent();
        there.write_all(b"x").await.unwrap();

        here.read_u8().await.unwrap();
        clock.sleep(timeout).await;

        assert!(!watchdog.has_expired());
    }
}
