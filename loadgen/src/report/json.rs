//! The report as JSON: the fields of [`Report`], in its order.

use std::io::{self, Write};

use super::Report;

/// Writes `report` as one indented object and a line end.
pub fn write_json(report: &Report, out: &mut impl Write) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, report)?;
    out.write_all(b"\n")?;
    out.flush()
}
