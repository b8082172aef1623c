//! `bench/results/*.json` as pictures: `docs/plots/PART.svg`, which docs/BENCHMARKS.md shows.
//!
//! **Invariant:** a picture says what its file says and nothing else, and is the same every time: a test
//! holds the two together. (Bars and words, written here: a library for plots brings axes, which rows of
//! different units have not, and fonts of the machine, which would make every picture another.)

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

const WIDTH: f64 = 860.0;
const MARGIN: f64 = 16.0;
/// The longest bar; its value stands behind it.
const LONGEST: f64 = 600.0;
const BAR: f64 = 16.0;
/// A row with its title, two bars and the room below.
const ROW: f64 = 74.0;
const HEAD: f64 = 40.0;

/// Writes the pictures.
pub fn run(root: &Path) -> Result<bool> {
    let folder = root.join("docs/plots");
    fs::create_dir_all(&folder)?;
    for (part, svg) in plots(root)? {
        let path = folder.join(format!("{part}.svg"));
        fs::write(&path, svg).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(true)
}

/// Every part that was measured, and its picture. (The guard's file is no measurement.)
fn plots(root: &Path) -> Result<Vec<(String, String)>> {
    let mut files: Vec<PathBuf> = fs::read_dir(root.join("bench/results"))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "json"));
    files.sort();
    let mut plots = Vec::new();
    for file in files {
        let part = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let rows: Value = serde_json::from_slice(&fs::read(&file)?)
            .with_context(|| format!("{} is not JSON", file.display()))?;
        if let Some(rows) = rows.as_array() {
            plots.push((part.clone(), picture(&part, rows)));
        }
    }
    Ok(plots)
}

fn picture(part: &str, rows: &[Value]) -> String {
    let height = HEAD + ROW * rows.len() as f64 + MARGIN;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         height=\"{height}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n"
    );
    let legend =
        "dark: ours; light: the rival; thin line: from the least to the most; dashed: the goal";
    text(&mut svg, MARGIN, 22.0, "#000000", &format!("{part}: {legend}"));
    for (at, row) in rows.iter().enumerate() {
        draw(&mut svg, HEAD + ROW * at as f64, row);
    }
    svg.push_str("</svg>\n");
    svg
}

fn draw(svg: &mut String, top: f64, row: &Value) {
    let word = |key: &str| row[key].as_str().unwrap_or_default();
    let (ours, rival) = (row["ours"].as_f64(), row["rival"].as_f64());
    let spread = |side: &str| {
        let ends = row["spread"][side].as_array()?;
        Some((ends.first()?.as_f64()?, ends.get(1)?.as_f64()?))
    };
    let goal = goal(word("goal"), rival);
    let ends = [spread("ours"), spread("rival")].into_iter().flatten().map(|(_, most)| most);
    let most = [ours, rival, goal].into_iter().flatten().chain(ends).fold(0.0, f64::max);
    let scale = if most > 0.0 { LONGEST / most } else { 0.0 };

    let met = match row["met"].as_bool() {
        Some(true) => format!(" (goal: {}; reached)", word("goal")),
        Some(false) => format!(" (goal: {}; NOT reached)", word("goal")),
        None => String::new(),
    };
    let ink = if row["met"] == false { "#b00020" } else { "#000000" };
    text(svg, MARGIN, top + 14.0, ink, &format!("{}: {}{met}", word("id"), word("what")));
    if rival.is_none() && goal.is_none() {
        // A bar that is as long as itself says nothing.
        let value = format!("{} {}", ours.map_or_else(String::new, number), word("unit"));
        text(svg, MARGIN, top + 22.0 + 12.5, "#000000", &value);
        return;
    }
    let sides = [("ours", ours, "#1f4e79"), ("rival", rival, "#b8cce4")];
    for (at, (side, value, colour)) in sides.into_iter().enumerate() {
        let Some(value) = value else { continue };
        let y = top + 22.0 + (BAR + 4.0) * at as f64;
        let _ = writeln!(
            svg,
            "<rect x=\"{MARGIN}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{BAR}\" fill=\"{colour}\"/>",
            (value * scale).max(1.0)
        );
        let mut end = value;
        if let Some((least, most)) = spread(side).filter(|(least, most)| least < most) {
            line(svg, (least * scale, most * scale), y + BAR / 2.0, y + BAR / 2.0, "");
            end = end.max(most);
        }
        let x = MARGIN + end * scale + 8.0;
        text(svg, x, y + 12.5, "#000000", &format!("{} {}", number(value), word("unit")));
    }
    if let Some(goal) = goal {
        let dashes = " stroke-dasharray=\"3 2\"";
        line(svg, (goal * scale, goal * scale), top + 20.0, top + 24.0 + 2.0 * BAR + 4.0, dashes);
    }
}

fn line(svg: &mut String, (from, to): (f64, f64), y1: f64, y2: f64, how: &str) {
    let (x1, x2) = (MARGIN + from, MARGIN + to);
    let _ = writeln!(
        svg,
        "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"#d97706\" stroke-width=\"2\"{how}/>"
    );
}

fn text(svg: &mut String, x: f64, y: f64, ink: &str, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" fill=\"{ink}\">{words}</text>");
}

/// What a goal in words means in the row's own unit, when it names a number.
fn goal(words: &str, rival: Option<f64>) -> Option<f64> {
    let number = words.split_once("at most ").or_else(|| words.split_once("at least "))?.1;
    let digits = number.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(number.len());
    let number: f64 = number[..digits].trim_end_matches('.').parse().ok()?;
    let of_rival = words.contains("ratio") || words.contains("of the rival");
    if of_rival { rival.map(|rival| rival * number) } else { Some(number) }
}

/// Three figures, which is more than a measurement is worth.
fn number(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plots_are_of_the_results() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let plots = plots(root).unwrap();
        assert!(!plots.is_empty());
        for (part, svg) in plots {
            let path = root.join(format!("docs/plots/{part}.svg"));
            let there = fs::read_to_string(&path).unwrap_or_default();
            assert!(there == svg, "`cargo xtask plots` writes {} anew", path.display());
        }
    }

    #[test]
    fn a_goal_is_a_number_of_its_row() {
        assert_eq!(goal("at most 3000", None), Some(3000.0));
        assert_eq!(goal("at least 500", Some(7.0)), Some(500.0));
        assert_eq!(goal("ratio at most 0.5", Some(40.0)), Some(20.0));
        assert_eq!(goal("at most 0.1 of the rival", Some(90.0)), Some(9.0));
        assert_eq!(goal("ratio at most 0.5", None), None);
        assert_eq!(goal("at most 64 (3 %)", None), Some(64.0));
        assert_eq!(goal("better", Some(1.0)), None);
    }
}
