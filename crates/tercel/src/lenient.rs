//! Requests that are made to fit instead of refused: values brought into their ranges, a prompt cut
//! to the context, and where memory runs short the same request smaller (specification 12.2).

use crate::context::{ContextOverflow, Fit};
use crate::engine::Engine;
use crate::error::Error;
use crate::memory::{Asked, Counts, Ladder, Outcome, is_out_of_memory, normalize};
use crate::reply::Reply;
use crate::request::Request;
use crate::stream::Stream;

impl Engine {
    /// Runs `request` to its end as [`Engine::generate`] does, but makes it fit where it does not:
    /// values out of range move into it, a reply that has no room becomes shorter, a prompt that is
    /// too long is cut as [`Request::context_overflow`] says, by default from the oldest turns of a
    /// conversation and the middle of a text; and where memory runs short, it is tried again with
    /// less. The second part says what was changed; it is in [`Reply::outcome`] too.
    ///
    /// What no value is near to, such as a NaN, is an error still.
    pub fn generate_leniently(&self, request: Request) -> (Result<Reply, Error>, Outcome) {
        let (request, ladder) = match self.made_to_fit(request) {
            Ok(fitting) => fitting,
            Err(error) => {
                let outcome = Outcome::rejected(&error);
                return (Err(error), outcome);
            }
        };
        let attempt = |attempt: &crate::memory::Attempt| {
            let request = request.clone().max_new_tokens(attempt.max_new_tokens);
            let (job, events) = self.prepare(request, 0, attempt.context_tokens)?;
            self.submit(job)?;
            Stream::new(events).wait()
        };
        let (result, outcome) = ladder.climb_down(attempt, is_out_of_memory);
        let told = |mut reply: Reply| {
            reply.outcome = Some(outcome.clone());
            reply
        };
        (result.map(told), outcome)
    }

    /// The request with values in their ranges and a way to cut its prompt, and what to try where
    /// memory runs short.
    fn made_to_fit(&self, mut request: Request) -> Result<(Request, Ladder), Error> {
        let max_context = self.info().max_context;
        let counts = |prompt_tokens| Counts {
            prompt_tokens,
            max_context,
        };
        let first = normalize(&request.sampling, counts(0))?;
        let mut adjustments = first.adjustments;
        request.sampling = first.sampling;
        let policy = if request.is_chat() {
            ContextOverflow::DropOldestTurns
        } else {
            ContextOverflow::TruncateMiddle
        };
        let own = &mut request.sampling.context_overflow;
        if own.is_none_or(|own| own == ContextOverflow::Error) {
            *own = Some(policy);
        }
        let settings = request.sampling.clone().resolve(self.model_sampling())?;
        // How long it is, were there room for it.
        let fit = Fit::of(&settings, usize::MAX)?;
        let prompt = self.prompt_of(&request, settings.thinking, &fit)?;
        let prompt_tokens = prompt.tokens.len();
        let is_asked = request.sampling.max_new_tokens.is_some();
        request.sampling.max_new_tokens = Some(settings.max_new_tokens);
        let mut second = normalize(&request.sampling, counts(prompt_tokens))?;
        request.sampling = second.sampling;
        // A default that the context has no room for is nothing that was asked for.
        second
            .adjustments
            .retain(|it| is_asked || it.field != "max_new_tokens");
        adjustments.extend(second.adjustments);
        let max_new_tokens = request.sampling.max_new_tokens.unwrap_or(1);
        let asked = Asked {
            max_new_tokens,
            context_tokens: second.prompt_tokens,
            batch: 1,
        };
        Ok((request, Ladder::new(asked, adjustments)))
    }
}
