//! A step ends: its tokens are known, turned into text, and sent.

use std::{collections::HashMap, time::Instant};

use super::{Active, Worker, attribution::StepShare, step::Step};
use crate::{
    error::EngineError,
    generation::{FinishReason, Token},
    model::Landed,
    sampling::Sampled,
    scheduler::{Chunk, SequenceId},
    text::{Piece, Text},
};

impl Worker {
    /// Waits for the oldest step under way, and sends what came of it; false when there is none.
    pub(super) fn land(&mut self) -> bool {
        let Some(mut step) = self.under_way.pop_front() else { return false };
        match self.executor.land() {
            Ok(landed) => {
                step.report.device = landed.device;
                let (computed, sampled) = (landed.computed, landed.sampled);
                self.advance(&step, landed);
                self.report(step, computed, sampled);
            }
            Err(error) => self.fail(step, &error),
        }
        true
    }

    fn advance(&mut self, step: &Step, Landed { drawn, sampled: now, .. }: Landed) {
        debug_assert_eq!(drawn.len(), step.parts.len(), "what was drawn is told for every sequence");
        self.attribute(step, now);
        // Prompts come last in a plan, and someone waits for their first tokens: those go out first.
        for (part, drawn) in step.parts.iter().zip(drawn).rev() {
            self.go_on(part.chunk, drawn, now);
        }
        // The tasks that carry these tokens on are ready now; a core that is about to compute lets them go first.
        std::thread::yield_now();
    }

    /// Tells every request what of the step was not for itself.
    fn attribute(&self, step: &Step, now: Instant) {
        let report = &step.report;
        let own: HashMap<SequenceId, usize> = step.parts.iter().map(|part| (part.chunk.id, part.prefill)).collect();
        let tokens = report.prefill_tokens + report.decode_tokens;
        for (id, active) in &self.active {
            let own = own.get(id);
            let others_prefill = report.prefill_tokens - own.copied().unwrap_or(0);
            active.stepped(report, now, StepShare { others_prefill, tokens, takes_part: own.is_some() });
        }
    }

    /// Sends what was sampled after a chunk, up to what ends the answer. Whoever ended while the step was under way
    /// gets nothing.
    fn go_on(&mut self, chunk: Chunk, sampled: Vec<Sampled>, now: Instant) {
        let Some(active) = self.active.get_mut(&chunk.id) else { return };
        if chunk.samples && sampled.is_empty() {
            return self.break_off(chunk.id);
        }
        active.landed(&chunk, sampled.len(), self.scheduler.blocks(chunk.id), now);
        let (mut known, mut keys, mut end) = (0_usize, Vec::new(), None);
        for token in sampled {
            known += 1;
            keys.extend(active.sampled(token.id, now));
            end = deliver(active, &self.text, token, now);
            if end.is_some() {
                break;
            }
        }
        if end.is_none() && known > 0 && active.is_full() {
            end = Some(FinishReason::Length);
        }
        self.stats.speculative_proposed += chunk.guessed as u64;
        self.stats.speculative_accepted += known.saturating_sub(1) as u64;
        self.scheduler.landed(chunk, known, keys);
        if let Some(reason) = end {
            self.finish(chunk.id, reason);
        }
    }

    /// What the model computed for a request is no number: it ends, and the others of the step go on.
    fn break_off(&mut self, id: SequenceId) {
        tracing::error!("the model's logits are not finite: are its weights whole?");
        if let Some(active) = self.remove(id) {
            active.fail("the model's logits are not finite");
        }
    }

    /// A step that failed ends the requests that were in it and have not ended since, and only those.
    pub(super) fn fail(&mut self, step: Step, error: &EngineError) {
        let failed = Instant::now();
        tracing::error!(%error, sequences = step.parts.len(), "step failed");
        self.broken |= error.is_final();
        for part in &step.parts {
            if let Some(active) = self.remove(part.chunk.id) {
                active.fail(&error.to_string());
            }
        }
        self.report(step, failed, failed);
    }

    /// Tells of a step whose forward ended, and whose tokens were known, at these instants.
    fn report(&mut self, step: Step, computed: Instant, sampled: Instant) {
        self.stats.steps += 1;
        let Step { launched, mut report, .. } = step;
        let (started, ended) = (report.start.started, Instant::now());
        report.duration = ended - started;
        report.plan = launched - started;
        report.forward = computed - launched;
        report.sample = sampled - computed;
        report.send = ended - sampled;
        self.observer.computed(&report);
    }
}

/// Sends one token; gives why it is the last, if it is.
fn deliver(active: &mut Active, text: &Text, sampled: Sampled, now: Instant) -> Option<FinishReason> {
    if text.is_end(sampled.id) && !active.ignore_eos {
        return Some(FinishReason::Stop);
    }
    let (text, stopped) = match active.stream.push(sampled.id) {
        Piece::Text(text) => (text, false),
        Piece::Stopped(text) => (text, true),
    };
    active.send(Token { id: sampled.id, text, logprob: sampled.logprob, sampled_at: now });
    stopped.then_some(FinishReason::Stop)
}
