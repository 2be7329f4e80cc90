//! The bounds, the counts and the batches, for spans of any size.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use opentelemetry::trace::{SpanContext, SpanId, SpanKind};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::telemetry::{
    encode::{Parent, SpanHead},
    export::Envelope,
    tests::LIMITS,
};

/// `number` spans with an attribute of `size` bytes each.
fn spans(number: usize, size: usize) -> EncodedSpans {
    let mut spans = EncodedSpans::default();
    let head = SpanHead {
        trace: &SpanContext::empty_context(),
        id: SpanId::INVALID,
        parent: Parent { id: SpanId::INVALID, is_remote: false },
        name: ("span", ""),
        kind: SpanKind::Internal,
        start: std::time::UNIX_EPOCH,
        end: std::time::UNIX_EPOCH,
    };
    for _ in 0..number {
        spans.add(&head, |span| span.attribute("text", "x".repeat(size).as_str()));
    }
    spans
}

fn decoded(batch: &Batch) -> usize {
    let envelope = Envelope::new(&opentelemetry_sdk::Resource::builder_empty().build());
    let message = envelope.enclose(batch.chunks());
    let bytes = futures::executor::block_on(http_body_util::BodyExt::collect(message)).unwrap().to_bytes();
    let request = ExportTraceServiceRequest::decode(bytes).unwrap();
    request.resource_spans.iter().flat_map(|resource| &resource.scope_spans).map(|scope| scope.spans.len()).sum()
}

#[derive(Debug, Clone)]
enum Act {
    Push { spans: usize, size: usize },
    Take,
    Settle { rejected: u64 },
    GiveUp,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => (1..12_usize, prop_oneof![0..300_usize, 30_000..90_000_usize])
            .prop_map(|(spans, size)| Act::Push { spans, size }),
        2 => Just(Act::Take),
        1 => (0..20_u64).prop_map(|rejected| Act::Settle { rejected }),
        1 => Just(Act::GiveUp),
    ]
}

proptest! {
    #[test]
    fn every_span_is_counted_once_and_no_bound_is_passed(acts in prop::collection::vec(act(), 1..120)) {
        let limits = Limits { queue: 60, queue_bytes: 500_000, batch: 20, ..LIMITS };
        let queue = Arc::new(SpanQueue::new(limits));
        let mut under_way = VecDeque::new();
        let mut created = 0;
        for act in acts {
            match act {
                Act::Push { spans: number, size } => {
                    created += number as u64;
                    let (held, bytes) = (queue.counts().held(), queue.held_bytes());
                    queue.push(spans(number, size));
                    // Only an empty queue takes what is larger than all of it.
                    prop_assert!(held == 0 || queue.held_bytes() <= limits.queue_bytes.max(bytes));
                    prop_assert!(held == 0 || queue.counts().held() <= held.max(limits.queue as u64));
                }
                Act::Take => if let Some(batch) = queue.take() {
                    prop_assert_eq!(decoded(&batch), batch.spans());
                    // More than a batch, in spans or in bytes, is only what belongs together.
                    prop_assert!(batch.spans() <= limits.batch || batch.chunks().len() == 1);
                    prop_assert!(batch.bytes <= BATCH_BYTES || batch.chunks().len() == 1);
                    under_way.push_back(batch);
                },
                Act::Settle { rejected } => if let Some(batch) = under_way.pop_front() {
                    batch.settle(&Taken { rejected, ..Taken::default() });
                },
                Act::GiveUp => drop(under_way.pop_back()),
            }
            let counts = queue.counts();
            prop_assert_eq!(counts.created, created);
            let sent: usize = under_way.iter().map(Batch::spans).sum();
            prop_assert_eq!(counts.held(), (queue.waiting() + sent) as u64);
        }
        under_way.clear();
        queue.close();
        queue.drop_waiting();
        queue.push(spans(2, 1));
        prop_assert_eq!((queue.counts().held(), queue.held_bytes()), (0, 0));
        prop_assert_eq!(queue.counts().created, created + 2);
    }
}

#[test]
fn spans_of_one_request_are_dropped_together() {
    let queue = SpanQueue::new(Limits { queue: 10, ..LIMITS });
    queue.push(spans(8, 1));
    queue.push(spans(3, 1));
    queue.push(spans(2, 1));
    assert_eq!(queue.counts(), SpanCounts { created: 13, dropped: 3, ..SpanCounts::default() });
}

#[test]
fn what_is_under_way_takes_room_until_it_is_settled() {
    let queue = Arc::new(SpanQueue::new(Limits { queue_bytes: 1_000, ..LIMITS }));
    queue.push(spans(1, 600));
    let batch = queue.take().unwrap();
    queue.push(spans(1, 600));
    assert_eq!(queue.counts().dropped, 1);
    batch.settle(&Taken::default());
    queue.push(spans(1, 600));
    assert_eq!(queue.counts(), SpanCounts { created: 3, exported: 1, dropped: 1, ..SpanCounts::default() });
}
