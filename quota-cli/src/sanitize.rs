//! Text from elsewhere, made safe for a terminal.

/// A text from somewhere else, such that it cannot garble the terminal.
pub(crate) fn sanitize(text: &str) -> String {
    let harmful = |c: char| {
        // Beside what controls a terminal: what has no width, and what turns the direction of text around.
        c.is_control()
            || matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    text.chars().map(|c| if harmful(c) { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_from_elsewhere_cannot_move_the_cursor_or_turn_the_line_around() {
        assert_eq!(sanitize("a\u{1b}[2Jb\u{202e}c\u{200b}é"), "a?[2Jb?c?é");
    }
}
