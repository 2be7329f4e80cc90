//! Why an analysis may not be trusted as far as its figures look: said beside them.

use super::Counts;
use super::figures::Analysed;
use super::segments::Segment;
use crate::server::ServerFacts;
use crate::words::{counted, percent};

/// With fewer requests a percentile is hardly more than one request.
const FEW: usize = 20;

/// A ledger that claims this much more than the client saw is not only rounded.
const EXCESS: u64 = 1_000_000;

/// The notes, the gravest first.
pub(super) fn notes(counts: &Counts, facts: Option<&ServerFacts>, analysed: &[Analysed<'_>]) -> Vec<String> {
    let mut notes = Vec::new();
    if counts.analysed < FEW {
        notes.push(format!("Few requests: {} analysed. Bands and percentiles rest on single ones.", counts.analysed));
    }
    if counts.drawn_from > counts.seen as u64 {
        let share = percent(counts.seen as f64 / counts.drawn_from as f64);
        notes.push(format!(
            "A sample: {} of {} requests ({share}). Rates and loads are scaled up from it.",
            counts.seen, counts.drawn_from
        ));
    }
    sides(counts, &mut notes);
    let excess = analysed.iter().filter(|request| request.split.excess > EXCESS).count();
    if excess > 0 {
        let requests = counted(excess as u64, "request");
        notes.push(format!("For {requests} the server claims over 1 ms more than the client waited; it is cut off."));
    }
    if analysed.iter().any(|request| request.split.whole()[Segment::NetworkOut as usize] > 0) {
        notes.push("Network out and back are told apart by the clocks of client and server, which agree.".into());
    }
    if facts.is_none() && counts.analysed > 0 {
        notes.push(
            "The server's inside (slots, KV cache, memory bandwidth) is not known: a report of --json has it.".into(),
        );
    }
    notes.extend(counts.left_out.iter().map(|(why, count)| format!("Left out: {count} {why}.")));
    notes
}

fn sides(counts: &Counts, notes: &mut Vec<String>) {
    let Counts { analysed, with_client, with_server, .. } = *counts;
    if with_client == 0 && analysed > 0 {
        notes.push("The server's side only: what users waited for outside of it is in no figure.".into());
    } else if with_client < analysed {
        notes.push(format!("{} of {analysed} requests are without the client's side.", analysed - with_client));
    }
    if with_server == 0 && analysed > 0 {
        notes.push(
            "The client's side only: the server reports no phases, so its time and the network's are one.".into(),
        );
    } else if with_server < analysed {
        notes.push(format!("{} of {analysed} requests are without the server's side.", analysed - with_server));
    }
}
