//! The output of commands for a simulated day, as files in `docs/captures`: text at several widths, and SVGs with
//! colors. `scripts/captures` writes the files, and the test compares them with the current output.
//!
//! Only the usage is simulated. The real record rules apply to it, in a store with a virtual clock, and the commands print it.

mod day;
mod svg;

use std::path::{Path, PathBuf};

use self::day::Day;
use crate::commands::{pace, watch};
use crate::view::account_text;
use crate::view::line::{Line, print};

/// Set by `scripts/captures`: write the files instead of comparing them.
const WRITE_VARIABLE: &str = "QUOTA_WRITE_CAPTURES";

/// Columns: a small pane, half a screen, the default terminal, and a wide terminal.
const WIDTHS: [u16; 4] = [42, 60, 80, 120];
/// The size of the SVGs, and the height of each watch screen.
const SVG_SIZE: (u16, u16) = (84, 30);

#[tokio::test(start_paused = true)]
async fn the_captures_in_docs_are_up_to_date() {
    let day = Day::simulate().await;
    let mut files = Vec::new();
    for width in WIDTHS {
        for (command, lines) in outputs(&day, width) {
            files.push((format!("{command}-{width}.txt"), print(&lines, false)));
        }
    }
    for (command, lines) in outputs(&day, SVG_SIZE.0) {
        for (name, palette) in [("light", svg::LIGHT), ("dark", svg::DARK)] {
            files.push((format!("{command}-{name}.svg"), svg::draw(&lines, SVG_SIZE.0, &palette)));
        }
    }

    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/captures");
    if std::env::var_os(WRITE_VARIABLE).is_some() {
        write(&folder, &files);
    }

    for (name, output) in &files {
        let stored = std::fs::read_to_string(folder.join(name)).unwrap_or_default();
        assert!(stored == *output, "docs/captures/{name} is out of date; run scripts/captures and review it");
    }
    let names: Vec<_> = files.iter().map(|(name, _)| folder.join(name)).collect();
    let left: Vec<_> = files_in(&folder).into_iter().filter(|path| !names.contains(path)).collect();
    assert!(left.is_empty(), "no command writes {left:?}");
}

/// The lines of each command at this width.
fn outputs(day: &Day, width: u16) -> [(&'static str, Vec<Line>); 3] {
    let columns = usize::from(width);
    [
        ("status", account_text::lines(&day.views, &day.local, columns)),
        ("pace", pace::captured(&day.updates, &day.local, columns)),
        ("watch", watch::captured(&day.views, &day.updates, &day.local, (width, SVG_SIZE.1))),
    ]
}

fn write(folder: &Path, files: &[(String, String)]) {
    for (name, output) in files {
        std::fs::write(folder.join(name), output).unwrap();
    }
}

fn files_in(folder: &Path) -> Vec<PathBuf> {
    folder.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect()
}
