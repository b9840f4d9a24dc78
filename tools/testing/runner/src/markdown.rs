// SPDX-License-Identifier: GPL-2.0

//! Tables in Markdown.

use comfy_table::Table;
use comfy_table::presets::ASCII_MARKDOWN;

/// Returns an empty Markdown table.
pub fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_preset(ASCII_MARKDOWN).set_header(header);
    table
}

/// Escapes text for a cell of a table.
pub fn plain(text: &str) -> String {
    let mut plain = String::new();
    for letter in text.chars() {
        if matches!(letter, '|' | '<' | '*' | '`' | '[' | '\\') {
            plain.push('\\');
        }
        plain.push(letter);
    }
    plain
}
