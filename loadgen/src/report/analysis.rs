//! An analysis as text: first the answer, then what it rests on, for someone who never saw it.

use std::io::{self, Write};

use super::json::write_indented;
use crate::analysis::sources::Source;
use crate::analysis::{Analysis, Band, Finding, Growth, Profile, SegmentTime};
use crate::words::{ms, number, percent};

/// Columns of a line of sentences.
const WIDTH: usize = 110;

/// Writes what holds the deployment back, how it shows, and what to change.
pub(super) fn write_answer(analysis: &Analysis, out: &mut impl Write) -> io::Result<()> {
    let Some(bottleneck) = &analysis.bottleneck else { return Ok(()) };
    writeln!(out, "\nBottleneck  {}  ({}){}", bottleneck.title, bottleneck.id, cost(bottleneck))?;
    sentences(&bottleneck.evidence, "  ", out)?;
    writeln!(out, "What to change")?;
    sentences(&bottleneck.advice, "- ", out)?;
    let Some(next) = &analysis.runner_up else { return Ok(()) };
    writeln!(out, "Next        {}  ({}){}", next.title, next.id, cost(next))
}

/// Writes the answer and all that it rests on.
pub fn write_analysis(analysis: &Analysis, sources: &[Source], out: &mut impl Write) -> io::Result<()> {
    for (number, Source { input, kind, content }) in sources.iter().enumerate() {
        let title = if number == 0 { "\nInputs      " } else { "            " };
        writeln!(out, "{title}{input}: {kind}, {content}")?;
    }
    requests(analysis, out)?;
    verdicts(analysis, out)?;
    write_answer(analysis, out)?;
    if let Some(next) = &analysis.runner_up {
        sentences(&next.evidence, "  ", out)?;
        sentences(&next.advice, "- ", out)?;
    }
    if let Some(profile) = &analysis.latency {
        writeln!(out, "\nWhere the time goes, from when a request was due to its end")?;
        bands(profile, out)?;
    }
    if let Some(profile) = &analysis.ttft {
        writeln!(out, "\nThe same up to the first text")?;
        bands(profile, out)?;
    }
    growth(&analysis.growth, out)?;
    failures(analysis, out)?;
    notes(analysis, out)?;
    out.flush()
}

/// Writes the analysis as JSON: its own fields, and the inputs.
pub fn write_analysis_json(analysis: &Analysis, sources: &[Source], out: &mut impl Write) -> io::Result<()> {
    #[derive(serde::Serialize)]
    struct Document<'a> {
        #[serde(flatten)]
        analysis: &'a Analysis,
        inputs: &'a [Source],
    }
    write_indented(&Document { analysis, inputs: sources }, out)
}

fn cost(finding: &Finding) -> String {
    if finding.cost_ms > 0.0 {
        format!(": {}, {} of the time users wait", ms(finding.cost_ms), percent(finding.share))
    } else {
        String::new()
    }
}

fn requests(analysis: &Analysis, out: &mut impl Write) -> io::Result<()> {
    let counts = &analysis.requests;
    write!(out, "Requests    {} analysed", counts.analysed)?;
    if counts.analysed > 0 {
        write!(out, ": {} seen by the client, {} with the server's phases", counts.with_client, counts.with_server)?;
    }
    if counts.in_ramp > 0 {
        write!(out, "; {} more sent during ramp-up", counts.in_ramp)?;
    }
    writeln!(out, "; {} failed", counts.failed)?;
    let Some(figures) = &analysis.figures else { return Ok(()) };
    let latency = figures.latency_ms;
    writeln!(
        out,
        "Load        {} requests/s; users wait {} on average, {} at p50, {} at p95",
        number(figures.requests_per_s),
        ms(latency.mean),
        ms(latency.p50),
        ms(latency.p95)
    )
}

fn verdicts(analysis: &Analysis, out: &mut impl Write) -> io::Result<()> {
    let verdicts = analysis.figures.iter().flat_map(|figures| &figures.verdicts);
    let verdicts: Vec<String> = verdicts
        .map(|verdict| {
            let metric = verdict.metric.to_uppercase();
            format!("{metric} {} {}: {}", verdict.percentile, ms(verdict.value_ms), verdict.grade)
        })
        .collect();
    if verdicts.is_empty() { Ok(()) } else { writeln!(out, "Verdicts    {}", verdicts.join("; ")) }
}

/// One row per segment, one column per band: milliseconds, and the part of the band's time.
fn bands(profile: &Profile, out: &mut impl Write) -> io::Result<()> {
    table(&profile.bands.iter().collect::<Vec<_>>(), "", out)?;
    if let Some(tail) = profile.tail {
        writeln!(
            out,
            "  The slowest 5% take {} longer than the quicker half; {} of it is {}.",
            ms(tail.slower_by_ms),
            ms(tail.segment_ms),
            tail.segment.name()
        )?;
    }
    Ok(())
}

fn growth(growth: &Growth, out: &mut impl Write) -> io::Result<()> {
    if let Some(why) = &growth.too_little {
        return writeln!(out, "\nHow it grows with load cannot be told: {why}.");
    }
    writeln!(out, "\nHow it grows with load, by requests under way when one was sent")?;
    table(&growth.bands.iter().map(|band| &band.band).collect::<Vec<_>>(), "under way", out)?;
    match growth.grows_most {
        Some(most) => writeln!(
            out,
            "  {} grows most: from {} ({}) to {} ({}).",
            most.segment.name(),
            percent(most.share_from),
            ms(most.ms_from),
            percent(most.share_to),
            ms(most.ms_to)
        ),
        None => Ok(()),
    }
}

fn table(bands: &[&Band], title: &str, out: &mut impl Write) -> io::Result<()> {
    let row = |name: &str, cells: Vec<String>| format!("  {name:<16}{}", cells.concat());
    let line = |cell: &dyn Fn(&Band) -> String| bands.iter().map(|band| format!("{:>16}", cell(band))).collect();
    writeln!(out, "{}", row(title, line(&|band| band.name.clone())))?;
    writeln!(out, "{}", row("requests", line(&|band| band.requests.to_string())))?;
    writeln!(out, "{}", row("milliseconds", line(&|band| number(band.mean_ms))))?;
    let segments = bands.first().map_or(0, |band| band.segments.len());
    for index in 0..segments {
        let time = |band: &Band| band.segments[index];
        let cell = |band: &Band| {
            let SegmentTime { ms, share, .. } = time(band);
            format!("{} {:>5}", number(ms), percent(share))
        };
        writeln!(out, "{}", row(time(bands[0]).segment.name(), line(&cell)))?;
    }
    Ok(())
}

fn failures(analysis: &Analysis, out: &mut impl Write) -> io::Result<()> {
    if analysis.failures.is_empty() {
        return Ok(());
    }
    writeln!(out, "\nFailed (in none of the times above)")?;
    for failure in &analysis.failures {
        writeln!(out, "  {:>7}  {:<24}ended in: {}", failure.count, failure.class, failure.ended_in)?;
    }
    Ok(())
}

fn notes(analysis: &Analysis, out: &mut impl Write) -> io::Result<()> {
    if analysis.notes.is_empty() {
        return writeln!(out, "\nNothing is known that would make these figures doubtful.");
    }
    writeln!(out, "\nHow far to trust this")?;
    sentences(&analysis.notes, "- ", out)
}

/// Sentences, each on lines of its own, begun with `mark` two columns in.
fn sentences(sentences: &[String], mark: &str, out: &mut impl Write) -> io::Result<()> {
    for sentence in sentences {
        let mut line = format!("  {mark}");
        let mut length = line.len();
        for word in sentence.split(' ') {
            let characters = word.chars().count() + 1;
            if length + characters > WIDTH && length > 4 {
                writeln!(out, "{}", line.trim_end())?;
                line = "    ".into();
                length = line.len();
            }
            line.extend([word, " "]);
            length += characters;
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}
