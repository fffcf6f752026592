//! QR codes in a terminal.

use std::io::{self, IsTerminal};

use qrcode::render::unicode::Dense1x2;
use qrcode::{Color, QrCode};

/// Columns of light around a code, so that cameras find it, on either side.
const QUIET: usize = 4;

/// A QR code of half-blocks, where the standard output is a terminal that has room
/// for it.
pub(super) fn for_terminal(text: &str) -> Option<String> {
    if !io::stdout().is_terminal() {
        return None;
    }
    let columns = rustix::termios::tcgetwinsize(io::stdout()).ok()?.ws_col;
    let code = QrCode::new(text).ok()?;
    if code.width() + 2 * QUIET > usize::from(columns) {
        return None;
    }
    let drawn = code.render::<Dense1x2>().build();
    // Black on white, whatever the terminal's own colours are.
    let lines = drawn
        .lines()
        .map(|line| format!("\x1b[30;107m{line}\x1b[0m\n"));
    Some(lines.collect())
}

/// The modules of a QR code: a string for each row, `1` is dark.
pub(super) fn modules(text: &str) -> Vec<String> {
    let Ok(code) = QrCode::new(text) else {
        return Vec::new();
    };
    let width = code.width();
    let letter = |color: &Color| if *color == Color::Dark { '1' } else { '0' };
    let colors = code.to_colors();
    let rows = colors.chunks(width.max(1));
    rows.map(|row| row.iter().map(letter).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_has_its_finder_patterns() {
        let rows = modules("https://login.example.org/device?user_code=ABCD-EFGH");
        assert!(rows.iter().all(|row| row.len() == rows.len()));
        for corner in [
            &rows[0][..7],
            &rows[0][rows.len() - 7..],
            &rows[rows.len() - 1][..7],
        ] {
            assert_eq!(corner, "1111111");
        }
        // More than any code holds.
        assert!(modules(&"x".repeat(5000)).is_empty());
    }
}
