//! A row of the report: a figure, its peer, and its target.

use std::fmt::Write as _;
use std::path::PathBuf;

use serde::Serialize;

/// One figure.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    name: String,
    value: f64,
    unit: &'static str,
    peer: String,
    peer_value: Option<f64>,
    ratio: Option<f64>,
    target: String,
    ok: bool,
}

impl Row {
    /// A figure that must be at most `most` times that of its peer.
    pub(crate) fn at_most(
        name: &str,
        (value, unit): (f64, &'static str),
        (peer, theirs): (&str, f64),
        most: f64,
    ) -> Self {
        let ratio = value / theirs;
        Self::new(name, value, unit, peer, Some(theirs), Some(ratio), format!("≤ {most} ×"), ratio <= most)
    }

    /// A figure that must be at least `least` times smaller than that of its peer.
    pub(crate) fn faster(
        name: &str,
        (value, unit): (f64, &'static str),
        (peer, theirs): (&str, f64),
        least: f64,
    ) -> Self {
        let ratio = value / theirs;
        let target = if least > 1.0 { format!("≥ {least} × faster") } else { "faster".to_owned() };
        Self::new(name, value, unit, peer, Some(theirs), Some(ratio), target, ratio * least < 1.0)
    }

    /// A figure that must be at least `least` times that of its peer.
    pub(crate) fn at_least(
        name: &str,
        (value, unit): (f64, &'static str),
        (peer, theirs): (&str, f64),
        least: f64,
    ) -> Self {
        let ratio = value / theirs;
        Self::new(name, value, unit, peer, Some(theirs), Some(ratio), format!("≥ {least} ×"), ratio >= least)
    }

    /// A figure that is only reported, with its peer's figure.
    pub(crate) fn reported(
        name: &str,
        (value, unit): (f64, &'static str),
        (peer, theirs): (&str, f64),
    ) -> Self {
        Self::new(name, value, unit, peer, Some(theirs), Some(value / theirs), "reported".to_owned(), true)
    }

    /// A figure with its own target, next to a peer's figure.
    pub(crate) fn within(
        name: &str,
        (value, unit): (f64, &'static str),
        (peer, theirs): (&str, f64),
        target: &str,
        ok: bool,
    ) -> Self {
        Self::new(name, value, unit, peer, Some(theirs), Some(value / theirs), target.to_owned(), ok)
    }

    /// A figure without a peer.
    pub(crate) fn absolute(name: &str, (value, unit): (f64, &'static str), target: &str, ok: bool) -> Self {
        Self::new(name, value, unit, "", None, None, target.to_owned(), ok)
    }

    #[expect(clippy::too_many_arguments, reason = "these are the columns of the table")]
    fn new(
        name: &str,
        value: f64,
        unit: &'static str,
        peer: &str,
        peer_value: Option<f64>,
        ratio: Option<f64>,
        target: String,
        ok: bool,
    ) -> Self {
        Self { name: name.to_owned(), value, unit, peer: peer.to_owned(), peer_value, ratio, target, ok }
    }
}

/// The rows as a Markdown table.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut text = String::from(
        "| row | value | unit | peer | peer value | ratio | target | ok |\n|---|--:|---|---|--:|--:|---|---|\n",
    );
    let number = |value: Option<f64>| value.map(|value| format!("{value:.2}")).unwrap_or_default();
    for row in rows {
        let (value, peer_value, ratio) = (number(Some(row.value)), number(row.peer_value), number(row.ratio));
        let ok = if row.ok { "yes" } else { "**no**" };
        let Row { name, unit, peer, target, .. } = row;
        let _ = writeln!(
            text,
            "| `{name}` | {value} | {unit} | {peer} | {peer_value} | {ratio} | {target} | {ok} |"
        );
    }
    text
}

/// Writes the rows as JSON, for scripts.
pub(crate) fn write_json(rows: &[Row]) -> std::io::Result<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    std::fs::create_dir_all(&target)?;
    let path = target.join("bench.json");
    std::fs::write(&path, serde_json::to_vec_pretty(rows)?)?;
    Ok(path)
}
