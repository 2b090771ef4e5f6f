//! Measures text in terminal columns, and truncates or wraps it.

use textwrap::core::{Word, display_width};
use textwrap::{Options, WordSeparator, WordSplitter};

/// Text is not wrapped to less than this width.
const NARROWEST: usize = 8;

/// The width of a text in columns.
pub(crate) fn width(text: &str) -> usize {
    display_width(text)
}

/// The text, followed by spaces up to this width.
pub(crate) fn padded(text: &str, columns: usize) -> String {
    format!("{text}{:gap$}", "", gap = columns.saturating_sub(width(text)))
}

/// The text in at most this many columns. A truncated text ends with an ellipsis.
pub(crate) fn truncate(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let mut short = String::new();
    let mut taken = 0;
    for letter in text.chars() {
        taken += width(letter.encode_utf8(&mut [0; 4]));
        if taken >= columns {
            break;
        }
        short.push(letter);
    }
    short.push('…');
    short
}

/// Wraps a text at spaces, and breaks words that are longer than a line. The first line starts after `start` columns, and
/// is empty if the first word does not fit. The other lines start after `indent` columns.
pub(super) fn wrap(text: &str, start: usize, indent: usize, columns: usize) -> Vec<String> {
    let (start, indent) = (" ".repeat(start), " ".repeat(indent));
    let options = Options::new(columns.max(indent.len() + NARROWEST))
        .initial_indent(&start)
        .subsequent_indent(&indent)
        .word_separator(WordSeparator::Custom(words))
        .word_splitter(WordSplitter::NoHyphenation);
    let indents = std::iter::once(&*start).chain(std::iter::repeat(&*indent));
    let lines = textwrap::wrap(text, options).into_iter().zip(indents);
    lines.map(|(line, indent)| line.strip_prefix(indent).unwrap_or(&line).to_owned()).collect()
}

/// Splits a text at spaces. A number and its unit are one word.
fn words(text: &str) -> Box<dyn Iterator<Item = Word<'_>> + '_> {
    let is_unit = |word: &str| word.starts_with(|first: char| first.is_alphabetic() || first == '%');
    let mut rest = text;
    Box::new(std::iter::from_fn(move || {
        let mut end = word_end(rest, 0)?;
        while rest[..end].trim_end().ends_with(|last: char| last.is_ascii_digit()) && is_unit(&rest[end..]) {
            end = word_end(rest, end)?;
        }
        let (word, after) = rest.split_at(end);
        rest = after;
        Some(Word::from(word))
    }))
}

/// The end of the word at `from`, with the spaces after it; `None` at the end of the text.
fn word_end(text: &str, from: usize) -> Option<usize> {
    let rest = text.get(from..).filter(|rest| !rest.is_empty())?;
    let word = rest.find(' ').unwrap_or(rest.len());
    let spaces = rest[word..].find(|c| c != ' ').unwrap_or(rest.len() - word);
    Some(from + word + spaces)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_truncated_text_ends_with_an_ellipsis() {
        assert_eq!(truncate("fallback", 8), "fallback");
        assert_eq!(truncate("fallback", 6), "fallb…");
        assert_eq!(truncate("fallback", 0), "…");
    }

    #[test]
    fn a_wide_letter_takes_two_columns() {
        assert_eq!(width("日本"), 4);
        assert_eq!(padded("日本", 5), "日本 ");
        assert_eq!(truncate("日本語", 5), "日本…");
        assert_eq!(truncate("日本語", 4), "日…");
    }

    #[test]
    fn lines_break_at_spaces_and_inside_long_words() {
        assert_eq!(wrap("one two three", 0, 0, 8), ["one two", "three"]);
        assert_eq!(wrap("at /home/username", 0, 0, 10), ["at", "/home/user", "name"]);
        assert_eq!(wrap("", 0, 0, 10), [""]);
        assert_eq!(wrap("", 4, 4, 10), [""]);
    }

    #[test]
    fn a_number_stays_with_its_unit() {
        assert_eq!(wrap("used up in 2 h 10 min", 0, 0, 12), ["used up in", "2 h 10 min"]);
        assert_eq!(wrap("used up in 2 h 10 min", 0, 0, 16), ["used up in 2 h", "10 min"]);
    }

    #[test]
    fn a_hanging_text_continues_at_its_indent() {
        assert_eq!(wrap("one two three", 10, 4, 14), ["one", "two three"]);
        assert_eq!(wrap("seventeen", 10, 4, 14), ["", "seventeen"], "the word fits the next line");
        assert_eq!(wrap("twenty-eight", 10, 4, 14), ["", "twenty-eig", "ht"], "the word fits no line");
    }
}
