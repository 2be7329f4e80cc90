//! Whose prompt is computed next.

use super::Sequence;

/// How prompts take turns; answers under way never wait for one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Policy {
    /// In order of arrival. A long prompt takes all that answers leave of each step until it is computed.
    #[default]
    Fcfs,
    /// Those with the least left to compute first (before it is known what the prefix cache has of a newcomer's),
    /// so that a long prompt holds up no short one; but nobody is passed over in more than [`Policy::PATIENCE`]
    /// steps.
    ShortestPrompt,
}

impl Policy {
    /// Steps in which a prompt may get nothing while a younger one gets something.
    pub const PATIENCE: u32 = 32;

    /// The lower goes first; the older among equals.
    pub(super) fn rank(self, sequence: &Sequence) -> usize {
        match self {
            Self::Fcfs => 0,
            Self::ShortestPrompt if sequence.passed_over >= Self::PATIENCE => 0,
            Self::ShortestPrompt => sequence.missing(),
        }
    }
}
