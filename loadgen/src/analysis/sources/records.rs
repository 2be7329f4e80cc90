//! The records of a run, one a line.

use std::io::{BufRead, Read as _};

use anyhow::{Context as _, ensure};

use super::gathering::Gathering;
use crate::record::{RequestRecord, Row};
use crate::words::counted;

/// A line may be as long as this; a record with a hundred thousand events is shorter.
const LINE_LIMIT: u64 = 16 << 20;

pub(super) fn read(mut file: impl BufRead, gathering: &mut Gathering) -> anyhow::Result<String> {
    // Records count from their run's start and do not say when that was.
    let clock = gathering.clock(0.0);
    let (mut line, mut number, mut read) = (Vec::new(), 0_u64, 0);
    loop {
        line.clear();
        number += 1;
        let length = (&mut file).take(LINE_LIMIT).read_until(b'\n', &mut line)? as u64;
        if length == 0 {
            break;
        }
        ensure!(length < LINE_LIMIT, "line {number} is longer than {LINE_LIMIT} bytes");
        if line.trim_ascii().is_empty() {
            continue;
        }
        match serde_json::from_slice::<RequestRecord>(&line) {
            Ok(record) => {
                read += 1;
                gathering.add_row(&Row::from(&record), clock, 0);
            }
            // A run that is killed leaves its last line unfinished.
            Err(_) if line.last() != Some(&b'\n') => gathering.leave_out("records cut off at the end of a file"),
            Err(error) => return Err(error).with_context(|| format!("line {number} is not a record")),
        }
    }
    Ok(counted(read, "request"))
}
