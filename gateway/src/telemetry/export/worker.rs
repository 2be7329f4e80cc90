//! Takes batches from the queue and has them delivered, a few at once.

use std::{
    sync::{Arc, mpsc as blocking},
    time::Instant,
};

use tokio::{
    sync::mpsc,
    task::{JoinError, JoinSet},
    time::{MissedTickBehavior, interval, timeout_at},
};

use super::{
    Envelope, Limits,
    delivery::{Transport, deliver},
    message::ExportMessage,
    queue::{Batch, SpanQueue},
};

/// Exports under way at once, so that a slow collector is limited by its latency only at this many batches.
const CONCURRENT_EXPORTS: usize = 4;

/// What the worker is asked for: to export all that is queued by a deadline, and whether to go on.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) deadline: Instant,
    pub(super) then: Then,
    pub(super) done: blocking::Sender<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    Continue,
    Stop,
}

/// The task that exports.
pub(super) struct Worker<T> {
    transport: Arc<T>,
    envelope: Envelope,
    queue: Arc<SpanQueue>,
    exports: JoinSet<Result<(), String>>,
    /// Whether spans were left for want of a place.
    behind: bool,
    /// Whether the last export failed.
    failing: bool,
}

impl<T: Transport> Worker<T> {
    pub(super) fn new(transport: T, envelope: Envelope, queue: Arc<SpanQueue>) -> Self {
        let transport = Arc::new(transport);
        Self { transport, envelope, queue, exports: JoinSet::new(), behind: false, failing: false }
    }

    /// Exports until it is ordered to stop, or until there is no one left to order it.
    pub(super) async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Order>) {
        let queue = Arc::clone(&self.queue);
        let mut tick = interval(queue.limits().delay);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                order = orders.recv() => {
                    let Some(order) = order else { return self.stop().await };
                    if order.then == Then::Stop {
                        queue.close();
                    }
                    let finished = timeout_at(order.deadline.into(), self.drain()).await.is_ok();
                    if order.then == Then::Stop {
                        self.stop().await;
                    }
                    // The asker may have given up waiting; the counts are right all the same.
                    let _ = order.done.send(finished);
                    if order.then == Then::Stop {
                        return;
                    }
                }
                () = queue.batch_ready() => { self.start_exports(); }
                _ = tick.tick() => { self.start_exports(); }
                Some(ended) = self.exports.join_next() => {
                    self.report(ended);
                    if self.behind {
                        self.start_exports();
                    }
                }
            }
        }
    }

    /// Sends batches while there are spans and places; says how many spans went.
    fn start_exports(&mut self) -> usize {
        let mut sent = 0;
        while self.exports.len() < CONCURRENT_EXPORTS {
            let Some(batch) = self.queue.take() else { break };
            sent += batch.spans();
            let message = self.envelope.enclose(batch.chunks());
            let export = export(Arc::clone(&self.transport), message, batch, *self.queue.limits());
            self.exports.spawn(export);
        }
        self.behind = self.queue.waiting() > 0;
        sent
    }

    /// Exports what is queued now and waits for all that is under way. Spans that come later are left: they
    /// must not keep it from ending.
    async fn drain(&mut self) {
        let mut queued = self.queue.waiting();
        loop {
            if queued > 0 {
                queued = queued.saturating_sub(self.start_exports());
            }
            match self.exports.join_next().await {
                Some(ended) => self.report(ended),
                None => return,
            }
        }
    }

    /// Gives up what is under way (it failed) and what is queued (it is dropped).
    async fn stop(&mut self) {
        self.queue.close();
        self.exports.shutdown().await;
        self.queue.drop_waiting();
    }

    /// Logs only when exports begin to fail and when they work again.
    fn report(&mut self, ended: Result<Result<(), String>, JoinError>) {
        let counts = self.queue.counts();
        match ended.unwrap_or_else(|error| Err(error.to_string())) {
            Ok(()) if self.failing => tracing::info!(?counts, "spans are exported again"),
            Ok(()) => return,
            Err(error) if !self.failing => tracing::warn!(error, ?counts, "spans cannot be exported"),
            Err(_) => return,
        }
        self.failing = !self.failing;
    }
}

/// One batch on its way.
async fn export<T: Transport>(
    transport: Arc<T>,
    message: ExportMessage,
    batch: Batch,
    limits: Limits,
) -> Result<(), String> {
    let taken = deliver(&*transport, &message, &limits).await?;
    batch.settle(&taken);
    match taken.rejected {
        0 => Ok(()),
        number => Err(format!("the collector rejected {number} spans: {}", taken.reason)),
    }
}
