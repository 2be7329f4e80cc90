//! What lies outside of the model: the client, its network, and the way into the server.

use super::{Case, Claim, Explanation, Figures, Part, Rule, Segment};
use crate::words::{ms, number};

/// A line that takes this many times longer after the first text than before it is slow, not long.
const SLOW_LINE: f64 = 2.0;

/// Shorter times on the line, in milliseconds, say nothing of its speed.
const SLOW_LINE_MS: f64 = 10.0;

/// The client, or its line, takes text more slowly than it is made.
pub(super) const SLOW_READER: Rule = Rule {
    claim: |case| {
        let mut claim = Claim::waiting(&[Segment::Stalled, Segment::Deliver]);
        if line_is_slow(case) {
            claim.waiting.extend(Segment::NETWORK.map(Part::Rest));
        }
        Some(claim)
    },
    explain: slow_reader,
};

/// The way to the server and back is long.
pub(super) const NETWORK: Rule = Rule {
    claim: |case| {
        let mut waiting = Segment::NETWORK.map(Part::First).to_vec();
        if !line_is_slow(case) {
            waiting.extend(Segment::NETWORK.map(Part::Rest));
        }
        Some(Claim { waiting, work: Vec::new() })
    },
    explain: network,
};

/// The load generator itself is late.
pub(super) const LOAD_GENERATOR: Rule =
    Rule { claim: |_| Some(Claim::waiting(&[Segment::ClientQueue])), explain: load_generator };

/// The server takes long to read a request or to encode its prompt.
pub(super) const INTAKE: Rule =
    Rule { claim: |_| Some(Claim::waiting(&[Segment::Receive, Segment::Tokenize])), explain: intake };

/// The server does not say what it does.
pub(super) const UNEXPLAINED: Rule = Rule {
    claim: |_| Some(Claim { waiting: Vec::new(), work: Part::both(Segment::Opaque).to_vec() }),
    explain: unexplained,
};

/// Whether the line holds text back as it flows, rather than each way once.
fn line_is_slow(case: &Case<'_>) -> bool {
    let Some(figures) = case.figures else { return false };
    let (before, after) = line(figures);
    after >= SLOW_LINE_MS && after > SLOW_LINE * before
}

/// The line's time before and after the first text.
fn line(figures: &Figures) -> (f64, f64) {
    let sum = |stage: &dyn Fn(Segment) -> f64| Segment::NETWORK.into_iter().map(stage).sum();
    (sum(&|segment| figures.first(segment).ms), sum(&|segment| figures.rest(segment).ms))
}

fn slow_reader(case: &Case<'_>, figures: &Figures) -> Explanation {
    let (stalled, deliver) = (figures.ms(&[Segment::Stalled]), figures.ms(&[Segment::Deliver]));
    let mut evidence = vec![format!(
        "The server pauses {} per request because its text is not read, and needs {} to hand over the last of it.",
        ms(stalled),
        ms(deliver)
    )];
    if line_is_slow(case) {
        let (before, after) = line(figures);
        evidence.push(format!(
            "Text is on its way {} longer than the server needs to make it; the way to the first text costs only {}.",
            ms(after),
            ms(before)
        ));
    }
    Explanation {
        id: "client",
        title: "The client, or its network, reads slower than the server writes".into(),
        evidence,
        advice: vec![
            "Look at the client and the line to it, and at proxies between that buffer: the server has the text ready."
                .into(),
            "No setting of the server helps.".into(),
        ],
    }
}

fn network(_: &Case<'_>, figures: &Figures) -> Explanation {
    let [out, back] = [Segment::NetworkOut, Segment::NetworkBack].map(|segment| figures.ms(&[segment]));
    let all = figures.ms(&Segment::NETWORK);
    let ways = if out + back > 0.0 { format!(" ({} out, {} back)", number(out), number(back)) } else { String::new() };
    Explanation {
        id: "network",
        title: "Requests spend their time between the client and the server".into(),
        evidence: vec![format!("Of the time that the client waits, {}{ways} are not the server's.", ms(all))],
        advice: vec![
            "Move clients nearer to the server, keep connections open, and look at proxies between.".into(),
            "Where both run on one machine, it is too busy: give the client cores of its own.".into(),
        ],
    }
}

fn load_generator(_: &Case<'_>, figures: &Figures) -> Explanation {
    let late = ms(figures.ms(&[Segment::ClientQueue]));
    Explanation {
        id: "client_queue",
        title: "The client sends late".into(),
        evidence: vec![format!("Requests are sent {late} after they were due, on average: the client's own error.")],
        advice: vec![
            "Give the load generator more cores or fewer users; until then its figures say little about the server."
                .into(),
        ],
    }
}

fn intake(_: &Case<'_>, figures: &Figures) -> Explanation {
    let (receive, tokenize) = (figures.ms(&[Segment::Receive]), figures.ms(&[Segment::Tokenize]));
    let prompt = figures.prompt_tokens.map_or_else(String::new, |tokens| format!(" ({} tokens)", number(tokens)));
    let (id, title, advice) = if receive > tokenize {
        (
            "receive",
            "Requests arrive slowly",
            "Uploads are slow: look at the client's line and at the size of request bodies. No setting of the server helps.",
        )
    } else {
        (
            "tokenize",
            "Encoding prompts takes the time",
            "Shorten prompts, or leave cores to the tokenizer: it shares them with the model (--threads).",
        )
    };
    Explanation {
        id,
        title: title.into(),
        evidence: vec![format!(
            "Reading a request takes {} on average, encoding its prompt{prompt} {}.",
            ms(receive),
            ms(tokenize)
        )],
        advice: vec![advice.into()],
    }
}

fn unexplained(_: &Case<'_>, figures: &Figures) -> Explanation {
    let time = ms(figures.ms(&[Segment::Opaque]));
    Explanation {
        id: "unexplained",
        title: "The server does not say where its time goes".into(),
        evidence: vec![format!("{time} per request are in no phase that the server reports.")],
        advice: vec!["Add the server's spans to the inputs, or use a server that reports its phases.".into()],
    }
}
