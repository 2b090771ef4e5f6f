//! Makes text from other sources safe for a terminal.

/// Replaces the characters that control a terminal, have no width, or change the direction of text.
pub fn sanitize(text: &str) -> String {
    let is_unsafe = |c: char| {
        c.is_control()
            || matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    text.chars().map(|c| if is_unsafe(c) { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_move_the_cursor_or_change_its_direction() {
        assert_eq!(sanitize("a\u{1b}[2Jb\u{202e}c\u{200b}é"), "a?[2Jb?c?é");
    }
}
