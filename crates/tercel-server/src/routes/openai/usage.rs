//! Token counts.

use serde::Serialize;
use utoipa::ToSchema;

use crate::work::Finished;

/// Token counts of a chat or a completion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, ToSchema)]
pub(super) struct Usage {
    /// Tokens of the prompts, each counted once however many choices there are.
    pub(super) prompt_tokens: usize,
    /// Tokens generated, those of thoughts included.
    pub(super) completion_tokens: usize,
    pub(super) total_tokens: usize,
    pub(super) prompt_tokens_details: PromptDetails,
    pub(super) completion_tokens_details: CompletionDetails,
}

/// Of the tokens of a prompt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, ToSchema)]
pub(super) struct PromptDetails {
    /// How many did not have to be computed.
    pub(super) cached_tokens: usize,
}

/// Of the tokens generated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, ToSchema)]
pub(super) struct CompletionDetails {
    /// How many belong to thoughts.
    pub(super) reasoning_tokens: usize,
}

impl Usage {
    /// That of replies of which so many in a row have the same prompt.
    pub(super) fn of_replies(finished: &[Finished], choices: usize) -> Self {
        Self::of(finished.iter().map(|one| one.reply.usage), choices)
    }

    fn of(usages: impl Iterator<Item = tercel::Usage>, choices: usize) -> Self {
        let mut all = Self::default();
        for (index, usage) in usages.enumerate() {
            if index.is_multiple_of(choices) {
                all.prompt_tokens += usage.prompt_tokens;
                all.prompt_tokens_details.cached_tokens += usage.cached_tokens;
            }
            all.completion_tokens += usage.generated_tokens;
            all.completion_tokens_details.reasoning_tokens += usage.thinking_tokens;
        }
        all.total_tokens = all.prompt_tokens + all.completion_tokens;
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_counts_once_for_all_its_choices() {
        let usage = |prompt_tokens, cached_tokens, generated_tokens| {
            let mut usage = tercel::Usage::default();
            usage.prompt_tokens = prompt_tokens;
            usage.cached_tokens = cached_tokens;
            usage.generated_tokens = generated_tokens;
            usage.thinking_tokens = 1;
            usage
        };
        let usages = [
            usage(5, 0, 2),
            usage(5, 4, 3),
            usage(7, 2, 10),
            usage(7, 6, 10),
        ];
        let all = Usage::of(usages.into_iter(), 2);
        assert_eq!(
            (all.prompt_tokens, all.completion_tokens, all.total_tokens),
            (12, 25, 37)
        );
        assert_eq!(all.prompt_tokens_details.cached_tokens, 2);
        assert_eq!(all.completion_tokens_details.reasoning_tokens, 4);
    }
}
