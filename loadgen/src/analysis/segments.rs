//! The time a user waits for one request, cut into consecutive segments that sum to it exactly.
//!
//! The client's stamps give the whole, the server's ledger its inside; the difference of the two is the
//! network. The time up to the first text and the time after it are kept apart, because they are judged by
//! different limits: every segment has a part in each, and all parts together are the whole.

use std::array;

use serde::{Serialize, Serializer};

use super::observation::{Attributed, ClientSide, Clock, Observation, ServerSide};
use crate::record::Phase;

/// Where time goes, in the order a request meets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Segment {
    /// Due, and not sent yet: the client's own delay.
    ClientQueue,
    /// Sent until the server has read its head, by clocks that agree.
    NetworkOut,
    /// The client's time that is not the server's: the way there and back, where no clock tells them apart.
    Network,
    /// The server reads the request.
    Receive,
    /// The server encodes the prompt.
    Tokenize,
    /// It waits for its first step.
    Queue,
    /// Its prompt is computed.
    Prefill,
    /// Its answer is computed.
    Decode,
    /// Within both: steps compute other requests' prompts.
    Interference,
    /// Within both: it was evicted and is computed again.
    Preempted,
    /// Within decode: it is paused, because the client reads slowly.
    Stalled,
    /// The last bytes are handed to the socket.
    Deliver,
    /// The server's time that no phase explains.
    Opaque,
    /// What remains of the client's time, by clocks that agree: the way back.
    NetworkBack,
}

/// How many there are.
pub(super) const SEGMENTS: usize = 14;

impl Segment {
    /// All, in order.
    pub const ALL: [Self; SEGMENTS] = [
        Self::ClientQueue,
        Self::NetworkOut,
        Self::Network,
        Self::Receive,
        Self::Tokenize,
        Self::Queue,
        Self::Prefill,
        Self::Decode,
        Self::Interference,
        Self::Preempted,
        Self::Stalled,
        Self::Deliver,
        Self::Opaque,
        Self::NetworkBack,
    ];

    /// The three that lie between the client and the server.
    pub const NETWORK: [Self; 3] = [Self::NetworkOut, Self::Network, Self::NetworkBack];

    /// Its name, in print and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::ClientQueue => "client queue",
            Self::NetworkOut => "network out",
            Self::Network => "network",
            Self::Receive => "receive",
            Self::Tokenize => "tokenize",
            Self::Queue => "queue",
            Self::Prefill => "prefill",
            Self::Decode => "decode",
            Self::Interference => "interference",
            Self::Preempted => "preempted",
            Self::Stalled => "stalled",
            Self::Deliver => "deliver",
            Self::Opaque => "unexplained",
            Self::NetworkBack => "network back",
        }
    }
}

impl Serialize for Segment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// Nanoseconds by segment.
pub(super) type Parts = [u64; SEGMENTS];

/// One request's time by segment, before and after its first text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Split {
    /// Due until the first text; all zero when none came.
    pub(super) first: Parts,
    /// From there to the end.
    pub(super) rest: Parts,
    /// Whether there was a first text.
    pub(super) has_first: bool,
    /// By how much the server claims more time than the client saw.
    pub(super) excess: u64,
}

impl Split {
    /// The time of `observation` by segment; none if neither side is known.
    pub(super) fn of(observation: &Observation) -> Option<Self> {
        let Some(client) = &observation.client else {
            let Inside { before, after } = Inside::of(observation.server.as_ref()?);
            let has_first = observation.ttft().is_some();
            let (first, rest) = if has_first { (before, after) } else { ([0; SEGMENTS], sum(before, after)) };
            return Some(Self { first, rest, has_first, excess: 0 });
        };
        let latency = client.end - client.sent;
        let server = observation.server.as_ref().map(|server| seen(client, server));
        let mut filling = Filling { left: latency };
        let inside = server.as_ref().map_or_else(
            || Inside::opaque(latency),
            |server| {
                let Inside { before, after } = Inside::of(server);
                Inside { before: filling.take(before), after: filling.take(after) }
            },
        );
        let network = latency - total(&inside.before) - total(&inside.after);
        let excess = server.as_ref().map_or(0, |server| server.total.saturating_sub(latency));
        let ways = out_and_back(client, server.as_ref(), network);
        Some(Self::at_first_text(client, inside, ways, excess))
    }

    /// Everything that came before the first text moves into `first`: the phases up to the first token, then
    /// as much of the network as fits, then decoding, which had begun if text was held back.
    fn at_first_text(client: &ClientSide, inside: Inside, [out, network]: [Parts; 2], excess: u64) -> Self {
        let mut first = [0; SEGMENTS];
        let mut rest = sum(sum(inside.before, inside.after), sum(out, network));
        if let Some(at) = client.first {
            let mut filling = Filling { left: at - client.sent };
            for parts in [out, inside.before, network, inside.after] {
                first = sum(first, filling.take(parts));
            }
            rest = array::from_fn(|index| rest[index] - first[index]);
        }
        let stage = if client.first.is_some() { &mut first } else { &mut rest };
        stage[Segment::ClientQueue as usize] = client.sent - client.scheduled;
        Self { first, rest, has_first: client.first.is_some(), excess }
    }

    /// The whole time by segment.
    pub(super) fn whole(&self) -> Parts {
        sum(self.first, self.rest)
    }

    /// Due until the end.
    pub(super) fn total(&self) -> u64 {
        total(&self.first) + total(&self.rest)
    }

    /// Counts both ways of the network as one.
    fn join_ways(&mut self) {
        for stage in [&mut self.first, &mut self.rest] {
            for way in [Segment::NetworkOut, Segment::NetworkBack] {
                stage[Segment::Network as usize] += std::mem::take(&mut stage[way as usize]);
            }
        }
    }
}

/// Tells the ways of the network apart for all requests or for none, so that their means can be compared.
pub(super) fn unify_ways<'a>(splits: impl Iterator<Item = &'a mut Split>) {
    let mut splits: Vec<&mut Split> = splits.collect();
    if splits.iter().any(|split| split.whole()[Segment::Network as usize] > 0) {
        splits.iter_mut().for_each(|split| split.join_ways());
    }
}

/// The server's side as far as the client waited for it: what the server did to close the request after the
/// client had all of it took no user's time.
fn seen(client: &ClientSide, server: &ServerSide) -> ServerSide {
    let mut seen = server.clone();
    let start = server.start.filter(|start| client.clock == Clock::Wall && *start >= client.sent);
    if let Some(start) = start {
        let after = start.saturating_add(server.total).saturating_sub(client.end).min(server.phase(Phase::Deliver));
        seen.phases[Phase::Deliver as usize] = server.phases[Phase::Deliver as usize].map(|time| time - after);
        seen.total -= after.min(seen.total);
    }
    seen
}

/// The network's time on the way out, and the rest of it. They are told apart only if both sides go by the
/// wall clock and the server's time lies within the client's: then the clocks agree as well as can be seen.
fn out_and_back(client: &ClientSide, server: Option<&ServerSide>, network: u64) -> [Parts; 2] {
    let (mut out, mut back) = ([0; SEGMENTS], [0; SEGMENTS]);
    let start = server.filter(|_| client.clock == Clock::Wall).and_then(|server| server.start);
    match start.and_then(|start| start.checked_sub(client.sent)).filter(|way| *way <= network) {
        Some(way) => {
            out[Segment::NetworkOut as usize] = way;
            back[Segment::NetworkBack as usize] = network - way;
        }
        None => back[Segment::Network as usize] = network,
    }
    [out, back]
}

/// The server's time, before and after its first token.
struct Inside {
    before: Parts,
    after: Parts,
}

impl Inside {
    fn of(server: &ServerSide) -> Self {
        let [receive, tokenize, queue, prefill, decode, deliver] = server.clamped();
        let Attributed { stalled, preempted, interference } = server.attributed;
        let (mut before, mut after) = ([0; SEGMENTS], [0; SEGMENTS]);
        before[Segment::Receive as usize] = receive;
        before[Segment::Tokenize as usize] = tokenize;
        before[Segment::Queue as usize] = queue;
        after[Segment::Deliver as usize] = deliver;
        // The ledger has one sum for prefill and decode together. What exceeds decode was in prefill for sure.
        let (mut decode, mut prefill) = (Filling { left: decode }, Filling { left: prefill });
        for (segment, time) in
            [(Segment::Stalled, stalled), (Segment::Preempted, preempted), (Segment::Interference, interference)]
        {
            let in_decode = decode.up_to(time);
            after[segment as usize] = in_decode;
            before[segment as usize] = prefill.up_to(time - in_decode);
        }
        before[Segment::Prefill as usize] = prefill.left;
        after[Segment::Decode as usize] = decode.left;
        let explained = total(&before) + total(&after);
        after[Segment::Opaque as usize] = server.total - explained;
        Self { before, after }
    }

    /// A server of which nothing is known.
    fn opaque(latency: u64) -> Self {
        let mut after = [0; SEGMENTS];
        after[Segment::Opaque as usize] = latency;
        Self { before: [0; SEGMENTS], after }
    }
}

/// A stretch of time that is given away part by part.
struct Filling {
    left: u64,
}

impl Filling {
    fn up_to(&mut self, time: u64) -> u64 {
        let part = time.min(self.left);
        self.left -= part;
        part
    }

    fn take(&mut self, parts: Parts) -> Parts {
        parts.map(|part| self.up_to(part))
    }
}

/// All parts together.
pub(super) fn total(parts: &Parts) -> u64 {
    parts.iter().sum()
}

fn sum(a: Parts, b: Parts) -> Parts {
    array::from_fn(|index| a[index] + b[index])
}
