//! The screen of `quota watch`: accounts as `quota status` shows them, a log, and what keys do.
//! A function of the state and the time; nothing here asks anybody.

use jiff::Timestamp;
use quota::AccountId;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Wrap};

use super::state::{Order, State};
use crate::format::{self, LocalTime, between};
use crate::term::{Screen, truncate};
use crate::view::account_text;
use crate::view::event_text::words_of;
use quota_journal::JournalEvent;

/// A terminal lower than this has no log.
const LOW: u16 = 16;
const LOG_ROWS: u16 = 7;

/// Draws all of it.
pub(super) fn draw(frame: &mut Frame<'_>, state: &mut State, local: &LocalTime, colour: bool) {
    let area = frame.area();
    let log = if area.height < LOW { 0 } else { LOG_ROWS };
    let rows = [Constraint::Length(1), Constraint::Min(0), Constraint::Length(log), Constraint::Length(1)];
    let [head, body, log, foot] = Layout::vertical(rows).areas(area);
    frame.render_widget(Line::styled(heading(state, local, head.width), Modifier::BOLD), head);
    if state.is_helping {
        frame.render_widget(Paragraph::new(HELP).wrap(Wrap { trim: false }), body);
    } else {
        accounts(frame, state, local, body, colour);
    }
    frame.render_widget(Paragraph::new(happened(state, local, log)), log);
    frame.render_widget(Line::styled(footing(state, foot.width), Modifier::DIM), foot);
}

const HELP: &str = "
  ↑ ↓ or k j   choose an account
  r            ask about it now, if the rules allow
  R            ask about all that are shown
  s            other order: as configured, most used first, by name
  /            show only accounts with this in their name; Esc ends it
  q            leave

  62 %         so much was used when the provider was asked
  ≥ 62 %       at least so much: the reading is old
  ──┼──        the tick is where the window's time stands";

fn heading(state: &State, local: &LocalTime, width: u16) -> String {
    let order = match state.order {
        Order::Configured => "as configured",
        Order::Used => "most used first",
        Order::Name => "by name",
    };
    let time = local.now.to_zoned_datetime(local.zone.clone()).strftime("%H:%M:%S").to_string();
    let shown = format::pluralize(state.shown().len() as u64, "account");
    truncate(&format!("quota · {time} · {shown}, {order}"), width.into())
}

fn accounts(frame: &mut Frame<'_>, state: &State, local: &LocalTime, body: Rect, colour: bool) {
    let shown = state.shown();
    let screen = Screen { width: usize::from(body.width.saturating_sub(2)), colour, ..Screen::DEFAULT };
    let mut lines = Vec::new();
    let mut selected_at = 0;
    for (view, one) in shown.iter().zip(account_text::each(&shown, local, screen)) {
        let is_selected = state.selected.as_ref() == Some(&view.id);
        if is_selected {
            selected_at = lines.len();
        }
        let mark = if is_selected { "▌ " } else { "  " };
        lines.extend(one.lines().map(|line| painted(mark, line)));
        if let Some(due) = state.due.get(&view.id).filter(|due| **due > local.now && view.hold.is_none()) {
            lines.push(painted(
                mark,
                &format!("  next refresh in {}", format::duration(between(local.now, *due))),
            ));
        }
        lines.push(Line::default());
    }
    if shown.is_empty() {
        lines.push(Line::raw("  no account has this in its name"));
    }
    // The chosen one is always in sight; without one, the first.
    let below = lines.len().saturating_sub(usize::from(body.height));
    let from = selected_at.min(below);
    lines.drain(..from);
    frame.render_widget(Paragraph::new(lines), body);
}

/// The last events of all accounts, the newest at the bottom.
fn happened(state: &State, local: &LocalTime, area: Rect) -> Vec<Line<'static>> {
    let rows = usize::from(area.height.saturating_sub(1));
    if rows == 0 {
        return Vec::new();
    }
    let mut all: Vec<(Timestamp, &AccountId, &JournalEvent)> = state
        .events
        .iter()
        .flat_map(|(account, events)| events.iter().map(move |one| (one.at, account, one)))
        .collect();
    all.sort_by_key(|(at, account, _)| (*at, *account));
    let surplus = all.len().saturating_sub(rows);
    let width = usize::from(area.width);
    let mut lines = vec![Line::styled("─".repeat(width), Modifier::DIM)];
    lines.extend(all[surplus..].iter().map(|(at, account, event)| {
        let time = at.to_zoned_datetime(local.zone.clone()).strftime("%H:%M:%S").to_string();
        Line::raw(truncate(&format!("{time}  {account} {}", words_of(&event.kind, local)), width))
    }));
    lines
}

fn footing(state: &State, width: u16) -> String {
    let keys = if state.is_typing {
        format!("show only: {}▏ Enter keeps it, Esc ends it", state.filter)
    } else {
        state.message().unwrap_or("q quit · ? help · r refresh · R all · s order · / filter").to_owned()
    };
    truncate(&keys, width.into())
}

/// A line that was painted for a plain terminal, as ratatui wants it. There are no other sequences in it than those of
/// `term`: whatever came from elsewhere has been made harmless.
fn painted(mark: &str, line: &str) -> Line<'static> {
    let mut spans = vec![Span::raw(mark.to_owned())];
    let mut style = Style::default();
    for (at, piece) in line.split('\u{1b}').enumerate() {
        let text = match piece.strip_prefix('[').and_then(|piece| piece.split_once('m')) {
            Some((code, text)) if at > 0 => {
                style = match code {
                    "1" => style.add_modifier(Modifier::BOLD),
                    "2" => style.add_modifier(Modifier::DIM),
                    "31" => style.fg(Color::Red),
                    "32" => style.fg(Color::Green),
                    "33" => style.fg(Color::Yellow),
                    _ => Style::default(),
                };
                text
            }
            _ => piece,
        };
        if !text.is_empty() {
            spans.push(Span::styled(text.to_owned(), style));
        }
    }
    Line::from(spans)
}

#[cfg(test)]
mod tests;
