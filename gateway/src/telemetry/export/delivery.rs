//! One batch is sent until it is taken, refused for good, or its time is over.

use std::{future::Future, time::Duration};

use tokio::time::{Instant, sleep, timeout};

use super::{
    Limits,
    answer::{Refusal, Retry, Taken},
    message::ExportMessage,
};

/// The pause after the first failure; it doubles up to the last, which is short enough to find a collector soon
/// after it is back.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_millis(800);

/// A way to a collector.
pub(in crate::telemetry) trait Transport: Send + Sync + 'static {
    /// Sends once.
    fn send(&self, message: ExportMessage) -> impl Future<Output = Result<Taken, Refusal>> + Send;
}

/// Sends `message` again and again. An error says why the last attempt failed.
pub(super) async fn deliver(
    transport: &impl Transport,
    message: &ExportMessage,
    limits: &Limits,
) -> Result<Taken, String> {
    let until = Instant::now() + limits.export_timeout;
    let mut pause = FIRST_PAUSE;
    loop {
        let attempt = limits.attempt_timeout.min(until - Instant::now());
        let answer = timeout(attempt, transport.send(message.clone())).await;
        let refusal = match answer.unwrap_or_else(|_| Err(Refusal::passing("the collector does not answer"))) {
            Ok(taken) => return Ok(taken),
            Err(refusal) => refusal,
        };
        let wait = match refusal.retry {
            Retry::Never => return Err(refusal.reason),
            // However soon it may be, a collector is not asked without pause.
            Retry::After(wait) => wait.max(FIRST_PAUSE),
            Retry::Soon => {
                let next = LAST_PAUSE.min(pause * 2);
                std::mem::replace(&mut pause, next)
            }
        };
        if until.saturating_duration_since(Instant::now()) <= wait {
            return Err(refusal.reason);
        }
        sleep(wait).await;
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::telemetry::tests::LIMITS;

    /// Gives its answers in turn, the last of them for ever, and notes when it was asked.
    struct Scripted {
        answers: Vec<Result<Taken, Refusal>>,
        asked: Mutex<Vec<Instant>>,
    }

    impl Transport for Scripted {
        async fn send(&self, _message: ExportMessage) -> Result<Taken, Refusal> {
            let number = {
                let mut asked = self.asked.lock().unwrap();
                asked.push(Instant::now());
                asked.len()
            };
            self.answers[number.min(self.answers.len()) - 1].clone()
        }
    }

    /// What came of it, and the milliseconds at which it was tried.
    async fn tried(answers: Vec<Result<Taken, Refusal>>) -> (Result<Taken, String>, Vec<u128>) {
        let transport = Scripted { answers, asked: Mutex::default() };
        let started = Instant::now();
        let result = deliver(&transport, &ExportMessage::default(), &LIMITS).await;
        let asked = transport.asked.lock().unwrap();
        (result, asked.iter().map(|at| at.duration_since(started).as_millis()).collect())
    }

    fn refusal(retry: Retry) -> Result<Taken, Refusal> {
        Err(Refusal { reason: "refused".to_owned(), retry })
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_up_to_a_limit() {
        let (result, asked) = tried([vec![refusal(Retry::Soon); 6], vec![Ok(Taken::default())]].concat()).await;
        assert_eq!(result, Ok(Taken::default()));
        assert_eq!(asked, [0, 100, 300, 700, 1500, 2300, 3100]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_collector_may_say_when_to_come_back() {
        let (result, asked) = tried(vec![refusal(Retry::After(Duration::from_secs(3))), Ok(Taken::default())]).await;
        assert_eq!(result, Ok(Taken::default()));
        assert_eq!(asked, [0, 3000]);
        let (result, asked) = tried(vec![refusal(Retry::After(Duration::from_secs(60)))]).await;
        assert_eq!((result, asked), (Err("refused".to_owned()), vec![0]), "beyond the time there is");
        let (result, asked) = tried(vec![refusal(Retry::After(Duration::ZERO)), Ok(Taken::default())]).await;
        assert_eq!((result, asked), (Ok(Taken::default()), vec![0, 100]), "at once is not without pause");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_refused_for_good_is_not_tried_again_and_the_rest_only_in_time() {
        let (result, asked) = tried(vec![refusal(Retry::Never)]).await;
        assert_eq!((result, asked), (Err("refused".to_owned()), vec![0]));
        let (result, asked) = tried(vec![refusal(Retry::Soon)]).await;
        assert_eq!(result, Err("refused".to_owned()));
        assert!(asked.len() > 10 && asked.last().is_some_and(|last| *last < 10_000), "{asked:?}");
    }
}
