//! The screen of `quota watch`: the accounts as `quota status` shows them, the last events, and help on the keys.
//! It depends only on the state and the time.

use jiff::Timestamp;
use quota::AccountId;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier};
use ratatui::text::{Line as UiLine, Span as UiSpan};
use ratatui::widgets::{Paragraph, Wrap};

use super::state::{Order, State};
use crate::format::{self, LocalTime, between};
use crate::view::account_text;
use crate::view::event_text::describe;
use crate::view::line::{Line, Style};
use crate::view::wrap::truncate;
use quota_journal::JournalEvent;

/// A terminal with fewer rows shows no events.
const MIN_HEIGHT_WITH_EVENTS: u16 = 16;
const EVENT_ROWS: u16 = 7;

/// Draws the screen.
pub(super) fn draw(frame: &mut Frame<'_>, state: &mut State, local: &LocalTime, color: bool) {
    let area = frame.area();
    let events = if area.height < MIN_HEIGHT_WITH_EVENTS { 0 } else { EVENT_ROWS };
    let rows = [Constraint::Length(1), Constraint::Min(0), Constraint::Length(events), Constraint::Length(1)];
    let [head, body, events, foot] = Layout::vertical(rows).areas(area);
    frame.render_widget(UiLine::styled(header(state, local, head.width), Modifier::BOLD), head);
    if state.show_help {
        frame.render_widget(Paragraph::new(HELP).wrap(Wrap { trim: false }), body);
    } else {
        accounts(frame, state, local, body, color);
    }
    frame.render_widget(Paragraph::new(event_lines(state, local, events)), events);
    frame.render_widget(UiLine::styled(footer(state, local.now, foot.width), Modifier::DIM), foot);
}

const HELP: &str = "
  ↑ ↓ or k j   select an account
  r            refresh it now (if rate limits allow)
  R            refresh all shown accounts
  s            change sort order: config, most used first, by name
  /            filter accounts by name; Esc clears the filter
  q            quit

  62 %         used at the last refresh
  ≥ 62 %       at least this much is used: the reading is stale
  ──┼──        the tick marks the elapsed time of the window";

fn header(state: &State, local: &LocalTime, width: u16) -> String {
    let order = match state.order {
        Order::Config => "config order",
        Order::Used => "most used first",
        Order::Name => "by name",
    };
    let accounts = format::pluralize(state.shown().len() as u64, "account");
    truncate(&format!("quota · {} · {accounts}, {order}", clock(local.now, local)), width.into())
}

fn accounts(frame: &mut Frame<'_>, state: &State, local: &LocalTime, body: Rect, color: bool) {
    let shown = state.shown();
    let width = usize::from(body.width.saturating_sub(2));
    let mut lines = Vec::new();
    let mut selected_at = 0;
    for (view, block) in shown.iter().zip(account_text::blocks(&shown, local, width)) {
        let is_selected = state.selected.as_ref() == Some(&view.id);
        if is_selected {
            selected_at = lines.len();
        }
        let mark = if is_selected { "▌ " } else { "  " };
        let due = state.due.get(&view.id).filter(|due| **due > local.now && view.hold.is_none());
        let due = due.map(|due| {
            Line::plain(format!("  next refresh in {}", format::duration(between(local.now, *due))))
        });
        lines.extend(block.iter().chain(&due).map(|line| to_ratatui(mark, line, color)));
        lines.push(UiLine::default());
    }
    if shown.is_empty() {
        lines.push(UiLine::raw("  no matching account"));
    }
    // Keep the selected account visible, or the first if none is selected.
    let below = lines.len().saturating_sub(usize::from(body.height));
    let from = selected_at.min(below);
    lines.drain(..from);
    frame.render_widget(Paragraph::new(lines), body);
}

/// The latest events of all accounts, newest at the bottom.
fn event_lines(state: &State, local: &LocalTime, area: Rect) -> Vec<UiLine<'static>> {
    let rows = usize::from(area.height.saturating_sub(1));
    if rows == 0 {
        return Vec::new();
    }
    let mut all: Vec<(Timestamp, &AccountId, &JournalEvent)> = state
        .events
        .iter()
        .flat_map(|(account, events)| events.iter().map(move |event| (event.at, account, event)))
        .collect();
    all.sort_by_key(|(at, account, _)| (*at, *account));
    let surplus = all.len().saturating_sub(rows);
    let width = usize::from(area.width);
    let mut lines = vec![UiLine::styled("─".repeat(width), Modifier::DIM)];
    lines.extend(all[surplus..].iter().map(|(at, account, event)| {
        let text = format!("{}  {account} {}", clock(*at, local), describe(&event.kind, local));
        UiLine::raw(truncate(&text, width))
    }));
    lines
}

fn footer(state: &State, now: Timestamp, width: u16) -> String {
    let text = if state.filtering {
        format!("filter: {}▏ (Enter keep, Esc clear)", state.filter)
    } else {
        let keys = || "q quit · ? help · r refresh · R all · s sort · / filter".to_owned();
        state.message(now).unwrap_or_else(keys)
    };
    truncate(&text, width.into())
}

fn clock(at: Timestamp, local: &LocalTime) -> String {
    at.to_zoned_datetime(local.zone.clone()).strftime("%H:%M:%S").to_string()
}

/// Converts a line to ratatui, prefixed with a mark.
fn to_ratatui(mark: &'static str, line: &Line, color: bool) -> UiLine<'static> {
    let style = |style| match style {
        _ if !color => ratatui::style::Style::new(),
        Style::Strong => Modifier::BOLD.into(),
        Style::Dim => Modifier::DIM.into(),
        Style::Good => Color::Green.into(),
        Style::Warn => Color::Yellow.into(),
        Style::Bad => Color::Red.into(),
        Style::Plain => ratatui::style::Style::new(),
    };
    let spans = line.spans().iter().map(|span| UiSpan::styled(span.text.clone(), style(span.style)));
    std::iter::once(UiSpan::raw(mark)).chain(spans).collect()
}

#[cfg(test)]
mod tests;
