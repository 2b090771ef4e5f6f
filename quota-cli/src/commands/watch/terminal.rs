//! The terminal in raw mode on its alternate screen. It is restored even after a panic.

use std::io::{self, stdout};
use std::mem::ManuallyDrop;
use std::panic;

use crossterm::cursor::{Hide, Show};
use crossterm::execute;
use crossterm::terminal::{
    Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::backend::CrosstermBackend;
use ratatui::{DefaultTerminal, Frame};
use tokio::sync::Notify;

use crate::exit::{CliError, Exit};
use crate::io_cause;

/// Notified after a panic. The terminal is then restored, and nothing may be drawn.
static PANICKED: Notify = Notify::const_new();

/// The terminal. It is restored when this is dropped or the program panics.
///
/// ratatui's terminal is never dropped, because its drop prints an error if the terminal is closed, and that panics. [`restore`] shows the
/// cursor instead.
pub(super) struct Terminal(ManuallyDrop<DefaultTerminal>);

impl Terminal {
    /// Enters raw mode and the alternate screen.
    ///
    /// # Errors
    ///
    /// [`CliError`] if a terminal operation fails. The terminal is then restored.
    pub(super) fn enter() -> Result<Self, CliError> {
        let report = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            // Restore first, because the alternate screen would hide the message.
            restore();
            report(panic);
            PANICKED.notify_one();
        }));
        let entered = enter().and_then(|()| blank_screen());
        entered.map(|drawing| Self(ManuallyDrop::new(drawing))).map_err(|error| {
            restore();
            CliError::new(Exit::OsErr, format!("could not use the terminal: {}", io_cause::plain(&error)))
        })
    }

    /// Draws the screen.
    ///
    /// # Errors
    ///
    /// [`CliError`] if drawing fails. It has no message if the terminal is closed.
    pub(super) fn draw(&mut self, content: impl FnOnce(&mut Frame<'_>)) -> Result<(), CliError> {
        self.0.draw(content).map(drop).map_err(|error| draw_failure(&error))
    }

    /// Restores the terminal for the shell, until [`resume`](Self::resume).
    pub(super) fn suspend(&mut self) {
        restore();
    }

    /// Enters raw mode and the alternate screen again, even if another program changed the terminal.
    ///
    /// # Errors
    ///
    /// As [`draw`](Self::draw).
    pub(super) fn resume(&mut self) -> Result<(), CliError> {
        // crossterm does nothing if it assumes that raw mode is on, but another program may have turned it off.
        let entered = disable_raw_mode().and_then(|()| enter()).and_then(|()| blank_screen());
        self.0 = ManuallyDrop::new(entered.map_err(|error| draw_failure(&error))?);
        Ok(())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        restore();
    }
}

/// Waits for a panic in any thread.
pub(super) async fn panicked() {
    PANICKED.notified().await;
}

fn draw_failure(error: &io::Error) -> CliError {
    #[cfg(unix)]
    if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) {
        // The terminal was closed; SIGHUP may arrive later.
        return CliError::new(Exit::HungUp, "");
    }
    CliError::write(error)
}

fn enter() -> io::Result<()> {
    enable_raw_mode()?;
    execute!(stdout(), EnterAlternateScreen, Hide)
}

/// Creates a ratatui terminal on a cleared screen. `Terminal::clear` would query the cursor's position, and read the response from the
/// keyboard input.
fn blank_screen() -> io::Result<DefaultTerminal> {
    execute!(stdout(), Clear(ClearType::All))?;
    ratatui::Terminal::new(CrosstermBackend::new(stdout()))
}

fn restore() {
    // Ignore errors, because there is no place to report them, and one step may work without the other.
    let _ = disable_raw_mode();
    let _ = execute!(stdout(), LeaveAlternateScreen, Show);
}

#[cfg(all(test, unix))]
mod tests;
