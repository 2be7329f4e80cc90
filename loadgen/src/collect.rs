//! From the users to the figures: one channel, one thread, so that measuring costs the users nothing.
//!
//! The thread writes each record to the JSONL file, if there is one, hands its span to the exporter, if there
//! is one, keeps some as rows, and adds it to two aggregates: the whole run, and the part of it with all users
//! active. The progress line reads [`Live`], never the aggregates.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::mpsc;

use crate::cli::Plan;
use crate::record::{Epoch, RequestRecord, Row};
use crate::spans::{self, Exporter, SpanCounts, client_span};
use crate::stats::{Aggregate, Histogram, Sample, Window};
use crate::words::tell;

/// Records on their way; a full channel makes users wait between requests, never within one.
const CHANNEL_CAPACITY: usize = 4096;

/// Rows kept, at some 1 kB each: enough that the slowest 1% are still hundreds.
const ROW_LIMIT: usize = 50_000;

/// Counts that change while the run goes on.
#[derive(Debug, Default)]
pub struct Live {
    /// Users started.
    pub users: AtomicUsize,
    /// Requests sent and not over.
    pub in_flight: AtomicUsize,
    /// Requests answered whole.
    pub succeeded: AtomicU64,
    /// Requests that failed.
    pub failed: AtomicU64,
    recent_ttft: Mutex<Histogram>,
}

impl Live {
    /// The median time to first token since the last call.
    pub fn take_recent_ttft(&self) -> Option<Duration> {
        let mut recent = self.recent_ttft.lock().unwrap_or_else(PoisonError::into_inner);
        let median = recent.quantile(0.5);
        recent.clear();
        median
    }
}

enum Message {
    UserStarted { at_us: u64 },
    Finished(Box<RequestRecord>),
}

/// Where users report; cheap to clone.
#[derive(Debug, Clone)]
pub struct Intake {
    sender: mpsc::Sender<Message>,
    live: Arc<Live>,
}

impl Intake {
    /// A user is ready for its first request.
    pub fn user_started(&self, at_us: u64) {
        self.live.users.fetch_add(1, Ordering::Relaxed);
        // A full channel only makes the ramp-up seem not to end; users are started far too slowly for that.
        let _ = self.sender.try_send(Message::UserStarted { at_us });
    }

    /// A request is about to be sent.
    pub fn sent(&self) {
        self.live.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    /// A request is over.
    pub async fn finished(&self, record: RequestRecord) {
        self.live.in_flight.fetch_sub(1, Ordering::Relaxed);
        // Closed only when the collector failed; its error is reported when it is joined.
        let _ = self.sender.send(Message::Finished(Box::new(record))).await;
    }
}

/// What the collector has at the end.
#[derive(Debug)]
pub struct Collected {
    /// The whole run.
    pub whole: Aggregate,
    /// The part with all users active; none if they never were.
    pub steady: Option<Aggregate>,
    /// Requests of the whole run, in the order they were sent: all, or as many as are kept, drawn evenly.
    pub rows: Vec<Row>,
    /// How many requests the rows were drawn from.
    pub rows_drawn_from: u64,
    /// What became of the spans; none if none were exported.
    pub spans: Option<SpanCounts>,
    /// Whether all records were written, where they were to be.
    pub records: anyhow::Result<()>,
}

/// The running collector.
#[derive(Debug)]
pub struct Collector {
    thread: JoinHandle<Collected>,
    live: Arc<Live>,
}

impl Collector {
    /// Starts the thread for a run of `plan`, whose times count from `epoch`.
    pub fn start(
        plan: &Plan,
        epoch: Epoch,
        records: Option<RecordFile>,
        exporter: Option<Exporter>,
    ) -> anyhow::Result<(Self, Intake)> {
        let (sender, receiver) = mpsc::channel(CHANNEL_CAPACITY);
        let live = Arc::new(Live::default());
        let run = spans::Run { epoch, users: plan.users, host: plan.host.clone() };
        let state = State {
            users_to_start: plan.users,
            run_time_us: u64::try_from(plan.run_time.as_micros()).unwrap_or(u64::MAX),
            whole: None,
            steady: None,
            rows: Sample::new(ROW_LIMIT, plan.seed),
            records,
            spans: exporter.map(|exporter| (exporter, run)),
            live: Arc::clone(&live),
        };
        let thread = std::thread::Builder::new()
            .name("collector".into())
            .spawn(move || state.run(receiver))
            .context("cannot start the collector thread")?;
        Ok((Self { thread, live: Arc::clone(&live) }, Intake { sender, live }))
    }

    /// The counts of the progress line.
    pub fn live(&self) -> Arc<Live> {
        Arc::clone(&self.live)
    }

    /// Waits until every [`Intake`] is gone and all of it is in the figures.
    pub fn finish(self) -> anyhow::Result<Collected> {
        self.thread.join().map_err(|_| anyhow::anyhow!("the collector thread panicked"))
    }
}

struct State {
    users_to_start: u32,
    run_time_us: u64,
    whole: Option<Aggregate>,
    steady: Option<Aggregate>,
    rows: Sample<Row>,
    records: Option<RecordFile>,
    spans: Option<(Exporter, spans::Run)>,
    live: Arc<Live>,
}

impl State {
    fn run(mut self, mut receiver: mpsc::Receiver<Message>) -> Collected {
        while let Some(message) = receiver.blocking_recv() {
            match message {
                Message::UserStarted { at_us } => self.user_started(at_us),
                Message::Finished(record) => self.finished(&record),
            }
        }
        let records = self.records.map_or(Ok(()), RecordFile::close);
        let whole = self.whole.unwrap_or_else(|| Aggregate::new(Window { start_us: 0, end_us: 0 }));
        let (mut rows, rows_drawn_from) = self.rows.into_parts();
        rows.sort_by_key(|row| row.sent_us);
        let spans = self.spans.map(|(exporter, _)| exporter.finish());
        Collected { whole, steady: self.steady, rows, rows_drawn_from, spans, records }
    }

    fn user_started(&mut self, at_us: u64) {
        let open = Window { start_us: at_us, end_us: u64::MAX };
        let whole = self.whole.get_or_insert_with(|| Aggregate::new(open));
        self.users_to_start = self.users_to_start.saturating_sub(1);
        if self.users_to_start == 0 && self.steady.is_none() {
            // Only now is it known when users will stop; nothing recorded so far lies beyond.
            let end_us = at_us.saturating_add(self.run_time_us);
            whole.end_at(end_us);
            self.steady = Some(Aggregate::new(Window { end_us, ..open }));
        }
    }

    fn finished(&mut self, record: &RequestRecord) {
        if let Some(records) = &mut self.records {
            records.write(record);
        }
        if let Some((exporter, run)) = &mut self.spans {
            client_span(record, run).into_iter().for_each(|span| exporter.offer(span));
        }
        self.rows.offer(|| Row::from(record));
        for aggregate in self.whole.iter_mut().chain(&mut self.steady) {
            aggregate.add(record);
        }
        if let Some(failure) = &record.error {
            self.live.failed.fetch_add(u64::from(!failure.class.is_ours()), Ordering::Relaxed);
            return;
        }
        self.live.succeeded.fetch_add(1, Ordering::Relaxed);
        if let Some(ttft) = record.ttft() {
            self.live.recent_ttft.lock().unwrap_or_else(PoisonError::into_inner).record(ttft);
        }
    }
}

/// The JSONL file, one record a line.
#[derive(Debug)]
pub struct RecordFile {
    path: PathBuf,
    writer: BufWriter<File>,
    /// What went wrong first; nothing is written after it.
    failure: Option<std::io::Error>,
}

impl RecordFile {
    /// Creates it, so that a bad path is known before the run.
    pub fn create(path: &Path) -> anyhow::Result<Self> {
        let file = File::create(path).with_context(|| format!("cannot create --records {}", path.display()))?;
        Ok(Self { path: path.to_owned(), writer: BufWriter::new(file), failure: None })
    }

    /// A failure is told at once, and again at the end: the run is worth more than its records.
    fn write(&mut self, record: &RequestRecord) {
        if self.failure.is_some() {
            return;
        }
        let written = serde_json::to_writer(&mut self.writer, record).map_err(std::io::Error::from);
        if let Err(error) = written.and_then(|()| self.writer.write_all(b"\n")) {
            tell(&format!("warning: cannot write --records {}: {error}; the run goes on", self.path.display()));
            self.failure = Some(error);
        }
    }

    fn close(mut self) -> anyhow::Result<()> {
        let written = match self.failure.take() {
            Some(error) => {
                // Another attempt, when the file is dropped, would fail as well.
                let _ = self.writer.into_parts();
                Err(error)
            }
            None => self.writer.flush(),
        };
        written.with_context(|| format!("cannot write --records {}", self.path.display()))
    }
}
