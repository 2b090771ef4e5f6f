//! The terminal while somebody watches: taken, given to others for a while, and given back whatever happens.
//! What is drawn on it is in `picture`.

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

/// Told when anything in this program panics: the terminal has been given back then, so nothing may be drawn any more.
static PANICKED: Notify = Notify::const_new();

/// The terminal, given back when this is dropped or the program panics.
///
/// What draws is never dropped: it would show the cursor, and panic where the terminal is closed, for it tells of that on the
/// closed terminal. [`give_back`] shows the cursor.
pub(super) struct Terminal(ManuallyDrop<DefaultTerminal>);

impl Terminal {
    /// Takes it: keys as they are pressed, and a screen of its own.
    ///
    /// # Errors
    ///
    /// [`CliError`] if it cannot be taken; then it is as it was.
    pub(super) fn take() -> Result<Self, CliError> {
        let tell = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            // First, or what is told would be gone with the screen.
            give_back();
            tell(panic);
            PANICKED.notify_one();
        }));
        let taken = enter().and_then(|()| on_a_blank_screen());
        taken.map(|drawing| Self(ManuallyDrop::new(drawing))).map_err(|error| {
            give_back();
            CliError::new(Exit::OsErr, format!("could not use the terminal: {}", io_cause::plain(&error)))
        })
    }

    /// Draws the screen anew.
    ///
    /// # Errors
    ///
    /// [`CliError`] if it cannot be drawn on; a quiet one if the terminal has gone.
    pub(super) fn draw(&mut self, picture: impl FnOnce(&mut Frame<'_>)) -> Result<(), CliError> {
        self.0.draw(picture).map(drop).map_err(|error| undrawn(&error))
    }

    /// Gives it to whoever is there, such as the shell, until [`retake`](Self::retake).
    pub(super) fn lend(&mut self) {
        give_back();
    }

    /// Takes it again from whoever had it, whatever they have left there.
    ///
    /// # Errors
    ///
    /// As [`draw`](Self::draw).
    pub(super) fn retake(&mut self) -> Result<(), CliError> {
        // Only what is off is turned on, and others may have turned it off.
        let taken = disable_raw_mode().and_then(|()| enter()).and_then(|()| on_a_blank_screen());
        self.0 = ManuallyDrop::new(taken.map_err(|error| undrawn(&error))?);
        Ok(())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        give_back();
    }
}

/// Waits for a panic, anywhere in this program.
pub(super) async fn panicked() {
    PANICKED.notified().await;
}

fn undrawn(error: &io::Error) -> CliError {
    #[cfg(unix)]
    if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) {
        // Closed by whoever had it; the signal that says so may come later.
        return CliError::new(Exit::HungUp, "");
    }
    CliError::write(error)
}

fn enter() -> io::Result<()> {
    enable_raw_mode()?;
    execute!(stdout(), EnterAlternateScreen, Hide)
}

/// One that knows of nothing that is drawn. Made anew rather than cleared: that asks the terminal where its cursor is, and
/// waits for the answer among the keys.
fn on_a_blank_screen() -> io::Result<DefaultTerminal> {
    execute!(stdout(), Clear(ClearType::All))?;
    ratatui::Terminal::new(CrosstermBackend::new(stdout()))
}

fn give_back() {
    // Where it cannot be given back, there is nobody to tell; and one of the two may work without the other.
    let _ = disable_raw_mode();
    let _ = execute!(stdout(), LeaveAlternateScreen, Show);
}

#[cfg(all(test, unix))]
mod tests;
