//! The report as text: made to be understood within a minute by someone who never saw it.

use std::io::{self, Write};

use super::Report;
use super::analysis::write_answer;
use super::server::server_facts;
use crate::spans::SpanCounts;
use crate::stats::{Distribution, ServerCheck};
use crate::words::{counted, number};

/// A wake-up lag above this, at p99, means that this process is too busy to measure well.
const LAG_WARNING_MS: f64 = 5.0;

/// A difference to the server's own figure above this needs an explanation.
const DIFFERENCE_WARNING_PERCENT: f64 = 5.0;

/// Below this number of requests a p99 is hardly more than the maximum.
const ENOUGH_FOR_P99: u64 = 100;

/// Writes `report`.
pub fn write_terminal(report: &Report, out: &mut impl Write) -> io::Result<()> {
    header(report, out)?;
    times(report, out)?;
    verdicts(report, out)?;
    phases(report, out)?;
    if let Some(facts) = &report.server {
        server_facts(facts, out)?;
    }
    write_answer(&report.analysis, out)?;
    errors(report, out)?;
    trust(report, out)?;
    out.flush()
}

fn header(report: &Report, out: &mut impl Write) -> io::Result<()> {
    let (plan, summary) = (&report.config, &report.summary);
    let (users, rate) = (counted(u64::from(plan.users), "user"), plan.spawn_rate);
    writeln!(out, "\nLoad        {users}, {rate} started per second, on POST {}/generate", plan.host)?;
    let interrupted = if report.interrupted { "  (cut short by a signal)" } else { "" };
    write!(out, "Window      {:.1} s", summary.window.seconds)?;
    if summary.window.ramp_excluded {
        let left_out = counted(summary.window.excluded_requests, "request");
        writeln!(out, " with all users active; {left_out} sent during ramp-up left out{interrupted}")?;
    } else {
        writeln!(out, ", ramp-up included{interrupted}")?;
    }
    let counts = summary.requests;
    write!(out, "Requests    {} succeeded, {} failed", counts.succeeded, counts.failed)?;
    if counts.interrupted > 0 {
        write!(out, ", {} cut by the signal and not counted", counts.interrupted)?;
    }
    if counts.cut > 0 {
        let grace = plan.grace.as_secs();
        write!(out, ", {} still open {grace} s after the run time: cut, and in no figure below", counts.cut)?;
    }
    let rates = summary.throughput;
    writeln!(
        out,
        "\nThroughput  {:.1} requests/s, {:.0} output tokens/s, {:.0} input tokens/s, {:.1} requests in flight on average",
        rates.requests_per_s, rates.output_tokens_per_s, rates.input_tokens_per_s, rates.mean_in_flight
    )
}

fn times(report: &Report, out: &mut impl Write) -> io::Result<()> {
    let times = &report.summary.latencies_ms;
    let rows = [
        ("Time to first token (TTFT)", times.ttft),
        ("Time per output token (TPOT)", times.tpot),
        ("Gap between two events", times.inter_token_gap),
        ("Latency, sent to end", times.latency),
        ("TTFT, from when it was due", times.ttft_from_schedule),
        ("Latency, from when it was due", times.latency_from_schedule),
    ];
    if rows.iter().all(|(_, figures)| figures.is_none()) {
        return Ok(());
    }
    let columns = ["mean", "p50", "p90", "p95", "p99", "max"].map(|name| format!("{name:>9}")).concat();
    writeln!(out, "\n{:<30}{columns}", "Milliseconds")?;
    for (name, figures) in rows {
        writeln!(out, "{name:<30}{}", cells(figures))?;
    }
    if times.latency.is_some_and(|figures| figures.count < ENOUGH_FOR_P99) {
        writeln!(out, "  With fewer than {ENOUGH_FOR_P99} requests p99 is little more than the maximum.")?;
    }
    Ok(())
}

fn cells(figures: Option<Distribution>) -> String {
    match figures {
        Some(Distribution { mean, p50, p90, p95, p99, max, .. }) => {
            [mean, p50, p90, p95, p99, max].map(|value| format!("{:>9}", number(value))).concat()
        }
        None => format!("{:>9}", "–").repeat(6),
    }
}

fn verdicts(report: &Report, out: &mut impl Write) -> io::Result<()> {
    if report.summary.verdicts.is_empty() {
        return Ok(());
    }
    writeln!(out, "\nVerdicts")?;
    for verdict in &report.summary.verdicts {
        writeln!(
            out,
            "  {} {}  {:>9} ms  {:<10}  (good below {} ms, acceptable to {} ms)",
            verdict.metric.to_uppercase(),
            verdict.percentile,
            number(verdict.value_ms),
            verdict.grade.to_string(),
            verdict.good_below_ms,
            verdict.acceptable_to_ms
        )?;
    }
    Ok(())
}

fn phases(report: &Report, out: &mut impl Write) -> io::Result<()> {
    let Some(phases) = &report.summary.phases_ms else {
        return writeln!(out, "\nThe server reports no phases.");
    };
    let requests = counted(phases.requests, "request");
    writeln!(out, "\nWhere a request's time goes, as the server reports it ({requests})")?;
    writeln!(out, "  {:<18}{:>9}{:>9}{:>9}{:>9}", "milliseconds", "mean", "p50", "p95", "share")?;
    for row in &phases.rows {
        let [mean, p50, p95] = [row.mean, row.p50, row.p95].map(number);
        writeln!(out, "  {:<18}{mean:>9}{p50:>9}{p95:>9}{:>8.1}%", row.phase, row.share * 100.0)?;
    }
    writeln!(out, "  Most of it is {}.", phases.largest)
}

fn errors(report: &Report, out: &mut impl Write) -> io::Result<()> {
    if report.summary.errors.is_empty() {
        return writeln!(out, "\nErrors      none");
    }
    writeln!(out, "\nErrors (not in any figure above)")?;
    for error in &report.summary.errors {
        let example: String = error.example.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        writeln!(out, "  {:<20}{:>7}  such as: {example}", error.class.to_string(), error.count)?;
    }
    Ok(())
}

fn trust(report: &Report, out: &mut impl Write) -> io::Result<()> {
    let (cost, summary) = (&report.client_cost_ms, &report.summary);
    writeln!(out, "\nHow far to trust these figures")?;
    let round_trip = |figures: Option<Distribution>| match figures {
        Some(figures) => format!("{} mean, {} p99", number(figures.mean), number(figures.p99)),
        None => "not measured".into(),
    };
    let (idle, loaded) = (round_trip(cost.round_trip_idle), round_trip(cost.round_trip_loaded));
    writeln!(out, "  Client and network cost, ms: {idle} before the run; {loaded} during it (GET /health/live)")?;
    if let Some(lag) = cost.wake_up_lag {
        let warning = if lag.p99 > LAG_WARNING_MS { "  WARNING: this machine is too busy to measure well" } else { "" };
        writeln!(out, "  Timers of this process fire late by {} ms at p99{warning}", number(lag.p99))?;
    }
    if let Some(reading) = cost.metrics_read {
        let [mean, max] = [reading.mean, reading.max].map(number);
        writeln!(out, "  The server's /metrics were read {} times, {mean} ms each, {max} at most", reading.count)?;
    }
    if let Some(spans) = report.client_spans.filter(|spans| spans.exported < spans.created) {
        let SpanCounts { created, failed, dropped, .. } = spans;
        writeln!(
            out,
            "  WARNING: of {created} client spans the collector refused {failed}, and {dropped} were not sent"
        )?;
    }
    match &report.server_check_ms {
        Some(check) => server_check(check, out)?,
        None => writeln!(out, "  Server check: no gen_ai_server_time_to_first_token_seconds in its /metrics")?,
    }
    let tokens = &summary.tokens;
    if let (Some(per_event), Some(bunched)) = (tokens.per_event, tokens.bunched_gaps) {
        let percent = bunched * 100.0;
        writeln!(
            out,
            "  {per_event:.2} tokens per event; {percent:.1}% of the events arrived together with the one before"
        )?;
    }
    if tokens.without_usage > 0 {
        let answers = counted(tokens.without_usage, "answer");
        writeln!(out, "  WARNING: {answers} came without a token count; their events were counted instead")?;
    }
    if let Some(example) = &tokens.implausible_example {
        let answers = counted(tokens.implausible, "answer");
        writeln!(out, "  WARNING: {answers} with implausible figures of the server, in no figure here: {example}")?;
    }
    let (joined, answered) = (summary.traces_joined, summary.requests.succeeded);
    writeln!(out, "  {joined} of {answered} answers carry the trace id that was sent with their request")
}

fn server_check(check: &ServerCheck, out: &mut impl Write) -> io::Result<()> {
    writeln!(
        out,
        "  Server check: mean TTFT {} ms here, {} ms in the server's histogram + {} ms round trip: {:+.1}%{}",
        number(check.client_mean_ttft),
        number(check.server_mean_ttft),
        number(check.round_trip),
        check.difference_percent,
        if check.difference_percent.abs() > DIFFERENCE_WARNING_PERCENT { "  WARNING: they disagree" } else { "" }
    )?;
    if check.client_requests != check.server_requests {
        let (here, there) = (check.client_requests, check.server_requests);
        writeln!(out, "    {here} requests here, {there} there: it also served others, or counts failed ones")?;
    }
    Ok(())
}
