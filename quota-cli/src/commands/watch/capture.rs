//! Renders the screen of `quota watch` as lines, for the captures.

use quota::{AccountId, Policy};
use quota_journal::JournalUpdate;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Cell;
use ratatui::style::{Color, Modifier};

use super::journal_task::DisplayUpdate;
use super::state::State;
use super::ui;
use crate::format::LocalTime;
use crate::view::account::AccountView;
use crate::view::line::{Line, Style};

/// Renders a screen of this size.
pub(crate) fn captured(
    views: &[AccountView],
    updates: &[(AccountId, JournalUpdate)],
    local: &LocalTime,
    (width, height): (u16, u16),
) -> Vec<Line> {
    let mut state = State { views: views.to_vec(), ..State::default() };
    for (account, update) in updates {
        state.apply(DisplayUpdate::new(account, update, &Policy::default()));
    }
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    let screen = terminal.draw(|frame| ui::draw(frame, &mut state, local, true)).unwrap();
    screen.buffer.content.chunks(usize::from(width)).map(line).collect()
}

/// Converts the cells of a row to a line, without trailing spaces.
fn line(row: &[Cell]) -> Line {
    let end = row.iter().rposition(|cell| cell.symbol() != " ").map_or(0, |last| last + 1);
    let mut line = Line::default();
    for cells in row[..end].chunk_by(|one, other| style(one) == style(other)) {
        line.push(style(&cells[0]), cells.iter().map(Cell::symbol).collect::<String>());
    }
    line
}

fn style(cell: &Cell) -> Style {
    match (cell.fg, cell.modifier) {
        (Color::Red, _) => Style::Bad,
        (Color::Green, _) => Style::Good,
        (Color::Yellow, _) => Style::Warn,
        (_, modifier) if modifier.contains(Modifier::BOLD) => Style::Strong,
        (_, modifier) if modifier.contains(Modifier::DIM) => Style::Dim,
        _ => Style::Plain,
    }
}
