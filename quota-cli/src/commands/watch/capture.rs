//! The screen of `quota watch` as text, for the captures.
//! What is on it is in `picture`.

use quota::{AccountId, Policy};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Cell;
use ratatui::style::{Color, Modifier};

use super::picture;
use super::scribe::Written;
use super::state::State;
use crate::format::LocalTime;
use crate::view::account::AccountView;
use quota_journal::JournalUpdate;

/// What there is to see.
pub(crate) struct Seen<'a> {
    pub(crate) local: &'a LocalTime,
    pub(crate) views: &'a [AccountView],
    pub(crate) looked: &'a [(AccountId, JournalUpdate)],
}

/// A screen of this size, with the sequences of `term` if it has colours.
pub(crate) fn drawn(seen: &Seen<'_>, width: u16, height: u16, colour: bool) -> String {
    let mut state = State { views: seen.views.to_vec(), ..State::default() };
    for (account, looked) in seen.looked {
        state.write(Written::of(account, looked, &Policy::default()));
    }
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    let screen = terminal.draw(|frame| picture::draw(frame, &mut state, seen.local, colour)).unwrap();
    let rows = screen.buffer.content.chunks(usize::from(width));
    rows.map(|row| line(row, colour).trim_end().to_owned() + "\n").collect()
}

fn line(row: &[Cell], colour: bool) -> String {
    let mut line = String::new();
    let mut before = "0";
    for cell in row {
        let code = match (cell.fg, cell.modifier) {
            (Color::Red, _) => "31",
            (Color::Green, _) => "32",
            (Color::Yellow, _) => "33",
            (_, modifier) if modifier.contains(Modifier::BOLD) => "1",
            (_, modifier) if modifier.contains(Modifier::DIM) => "2",
            _ => "0",
        };
        if colour && code != before {
            line.push_str(&format!("\u{1b}[{code}m"));
            before = code;
        }
        line.push_str(cell.symbol());
    }
    line
}
