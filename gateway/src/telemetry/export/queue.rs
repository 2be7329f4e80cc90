//! The spans that wait or are on their way, and what became of all others.
//!
//! Spans wait as the bytes that will be sent, appended to chunks: no span is an allocation of its own, and a
//! batch is a few chunks as they are, each of one origin. The counts are kept under the same lock, so that at any moment
//! `created = exported + dropped + failed + held`.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use super::{
    super::encode::{EncodedSpans, Origin},
    Limits,
    answer::Taken,
    message::Spans,
};

/// Bytes of one export: collectors refuse a gRPC message of more than 4 MiB by default.
const BATCH_BYTES: usize = 3 << 20;

/// Bytes of one chunk; spans that are sent together may be more.
const CHUNK_BYTES: usize = 64 << 10;

/// Chunks at the end of the queue in which there may be one with room.
const OPEN_CHUNKS: usize = 8;

/// What became of the spans so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SpanCounts {
    /// Ended and meant for export.
    pub created: u64,
    /// Accepted by the collector.
    pub exported: u64,
    /// Never sent: the queue was full, or the time to shut down was over.
    pub dropped: u64,
    /// Sent, but refused, rejected or not answered in time.
    pub failed: u64,
}

impl SpanCounts {
    /// Waiting, or on their way.
    pub fn held(&self) -> u64 {
        self.created - self.exported - self.dropped - self.failed
    }
}

/// The queue; spans come from any thread.
#[derive(Debug)]
pub(in crate::telemetry) struct SpanQueue {
    limits: Limits,
    state: Mutex<State>,
    batch_ready: Notify,
}

#[derive(Debug, Default)]
struct State {
    chunks: VecDeque<Chunk>,
    counts: SpanCounts,
    /// Spans in the chunks.
    waiting: usize,
    /// Bytes in the chunks, and of batches on their way.
    held_bytes: usize,
    /// Whether the last ones were dropped for want of room.
    overflowing: bool,
    closed: bool,
}

#[derive(Debug, Default)]
struct Chunk {
    origin: Origin,
    spans: usize,
    bytes: Vec<u8>,
}

/// Spans that are sent together: they failed, unless they are settled otherwise, also when the export panics or
/// is given up.
#[derive(Debug)]
pub(super) struct Batch {
    queue: Arc<SpanQueue>,
    chunks: Vec<Spans>,
    spans: usize,
    bytes: usize,
    exported: u64,
}

impl SpanQueue {
    /// An empty one.
    pub(in crate::telemetry) fn new(limits: Limits) -> Self {
        Self { limits, state: Mutex::default(), batch_ready: Notify::new() }
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Queues all of `spans`, or drops all.
    pub(in crate::telemetry) fn push(&self, spans: EncodedSpans) {
        let origin = spans.origin();
        let (number, bytes) = spans.into_parts();
        let mut state = self.lock();
        let fits = state.has_room(&self.limits, number, bytes.len());
        state.counts.created += number as u64;
        if state.closed || !fits {
            state.counts.dropped += number as u64;
            let overflows = !state.closed && !std::mem::replace(&mut state.overflowing, true);
            drop(state);
            if overflows {
                tracing::warn!(limits = ?self.limits, "spans are dropped: too many wait for the collector");
            }
            return;
        }
        state.append(self.limits.batch, origin, (number, &bytes));
        let is_ready = state.waiting >= self.limits.batch || state.chunks.len() * CHUNK_BYTES >= BATCH_BYTES;
        drop(state);
        if is_ready {
            self.batch_ready.notify_one();
        }
    }

    /// Waits until there is a whole batch.
    pub(super) async fn batch_ready(&self) {
        self.batch_ready.notified().await;
    }

    /// The spans that have waited longest.
    pub(super) fn take(self: &Arc<Self>) -> Option<Batch> {
        let mut state = self.lock();
        let first = state.chunks.pop_front()?;
        let mut batch = Batch { queue: Arc::clone(self), chunks: Vec::new(), spans: 0, bytes: 0, exported: 0 };
        batch.add(first);
        while let Some(next) = state.chunks.front()
            && batch.spans + next.spans <= self.limits.batch
            && batch.bytes + next.bytes.len() <= BATCH_BYTES
            && let Some(next) = state.chunks.pop_front()
        {
            batch.add(next);
        }
        state.waiting -= batch.spans;
        state.overflowing &= state.waiting > 0;
        Some(batch)
    }

    /// Takes no more spans.
    pub(super) fn close(&self) {
        self.lock().closed = true;
    }

    /// Gives up what waits.
    pub(super) fn drop_waiting(&self) {
        let mut state = self.lock();
        let chunks = std::mem::take(&mut state.chunks);
        state.held_bytes -= chunks.iter().map(|chunk| chunk.bytes.len()).sum::<usize>();
        state.counts.dropped += std::mem::take(&mut state.waiting) as u64;
    }

    /// Spans that wait for a place in a batch.
    pub(super) fn waiting(&self) -> usize {
        self.lock().waiting
    }

    /// What became of the spans so far.
    pub(in crate::telemetry) fn counts(&self) -> SpanCounts {
        self.lock().counts
    }

    /// Bytes of the spans that wait or are on their way.
    pub(in crate::telemetry) fn held_bytes(&self) -> usize {
        self.lock().held_bytes
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether so many more may be held. An empty queue takes what is larger than all of it.
    fn has_room(&self, limits: &Limits, spans: usize, bytes: usize) -> bool {
        let held = self.counts.held() as usize;
        held == 0 || (held + spans <= limits.queue && self.held_bytes + bytes <= limits.queue_bytes)
    }

    fn append(&mut self, batch: usize, origin: Origin, (spans, bytes): (usize, &[u8])) {
        self.waiting += spans;
        self.held_bytes += bytes.len();
        // One chunk of each origin is being filled.
        if let Some(last) = self.chunks.iter_mut().rev().take(OPEN_CHUNKS).find(|chunk| chunk.origin == origin) {
            if last.spans + spans <= batch && last.bytes.len() + bytes.len() <= CHUNK_BYTES {
                last.spans += spans;
                last.bytes.extend_from_slice(bytes);
                return;
            }
            // What it may still take is not counted: only the chunks that are being filled have room.
            last.bytes.shrink_to_fit();
        }
        self.chunks.push_back(Chunk { origin, spans, bytes: bytes.to_vec() });
    }
}

impl Batch {
    fn add(&mut self, chunk: Chunk) {
        self.spans += chunk.spans;
        self.bytes += chunk.bytes.len();
        self.chunks.push((chunk.origin, chunk.bytes.into()));
    }

    pub(super) fn spans(&self) -> usize {
        self.spans
    }

    /// What to send.
    pub(super) fn chunks(&self) -> &[Spans] {
        &self.chunks
    }

    /// The collector took it, but for what it rejected.
    pub(super) fn settle(mut self, taken: &Taken) {
        self.exported = (self.spans as u64).saturating_sub(taken.rejected);
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        let mut state = self.queue.lock();
        state.counts.exported += self.exported;
        state.counts.failed += self.spans as u64 - self.exported;
        state.held_bytes -= self.bytes;
    }
}

#[cfg(test)]
mod tests;
