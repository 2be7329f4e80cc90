//! The report as JSON: the fields of [`Report`], in its order, and last its rows, one line each.

use std::io::{self, Write};

use super::Report;

/// Writes `report` as one indented object and a line end.
pub fn write_json(report: &Report, out: &mut impl Write) -> io::Result<()> {
    let fields = serde_json::to_string_pretty(report)?;
    // The object is left open for the rows, which would fill twenty lines each if they were indented.
    let fields = fields.strip_suffix("\n}").unwrap_or(&fields);
    write!(out, "{fields},\n  \"rows\": [")?;
    for (number, row) in report.rows.iter().enumerate() {
        out.write_all(if number == 0 { b"\n    " } else { b",\n    " })?;
        serde_json::to_writer(&mut *out, row)?;
    }
    out.write_all(b"\n  ]\n}\n")?;
    out.flush()
}
