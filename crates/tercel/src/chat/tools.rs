//! Turns in which the model calls tools.

use tercel_text::Message;

use super::Chat;
use crate::reply::{Event, Reply, StopReason};
use crate::request::Request;
use crate::tools::{ToolChoice, Toolbox};

/// Replies of one turn that may call tools.
pub(super) const ROUNDS: usize = 4;

impl Chat {
    /// Tools that the model may call. What it calls is run at once, what that gives is told to the
    /// model, and the turn goes on until it answers: see [`Chat::max_tool_rounds`].
    ///
    /// Calls keep to the schemas of their tools, and nothing but these tools is run. A tool that fails
    /// tells the model so. What a reply calls that is cut, by its length or a deadline, is not run: it
    /// is in [`Reply::tool_calls`], and the turn is taken back where nothing was said beside it.
    #[must_use]
    pub fn tools(mut self, tools: Toolbox) -> Self {
        self.set_tools(tools);
        self
    }

    /// Replaces the tools from the next turn on; an empty box takes them away.
    pub fn set_tools(&mut self, tools: Toolbox) {
        self.tools = tools;
    }

    /// Whether the first reply of each turn calls tools, by default as the model decides. The replies
    /// behind it are the model's own in any case, so that it comes to an answer.
    #[must_use]
    pub fn tool_choice(mut self, choice: ToolChoice) -> Self {
        self.tool_choice = choice;
        self
    }

    /// Whether a reply may call several tools at once, by default false: small models repeat
    /// themselves, and a call that waits for the result before it is the better one.
    #[must_use]
    pub fn parallel_tool_calls(mut self, several: bool) -> Self {
        self.parallel_tool_calls = several;
        self
    }

    /// How many replies of a turn may call tools, by default 4: the one after these answers without.
    #[must_use]
    pub fn max_tool_rounds(mut self, rounds: usize) -> Self {
        self.max_tool_rounds = rounds;
        self
    }

    /// What the model is asked after so many rounds of calls.
    pub(super) fn request(&self, rounds: usize) -> Request {
        let choice = match rounds {
            rounds if rounds >= self.max_tool_rounds => ToolChoice::None,
            0 => self.tool_choice.clone(),
            _ => ToolChoice::Auto,
        };
        Request::chat(self.history.clone())
            .sampling(self.sampling.clone())
            .tools(self.tools.tools().iter().cloned())
            .tool_choice(choice)
            .parallel_tool_calls(self.parallel_tool_calls)
    }

    /// Whether a reply says something that may enter the history.
    pub(super) fn is_complete(reply: &Reply) -> bool {
        let is_cut_call = !reply.tool_calls.is_empty() && reply.text.is_empty();
        reply.stop_reason != StopReason::Cancelled && !is_cut_call
    }

    /// Whether a reply waits for what its calls give.
    pub(super) fn is_to_go_on(&self, reply: &Reply) -> bool {
        reply.stop_reason == StopReason::ToolCall
    }

    /// Runs what a reply calls; it and the results enter the history. Nothing does where `is_over`
    /// says between two tools that it is enough.
    pub(super) fn run_tools(
        &mut self,
        reply: &Reply,
        is_over: impl Fn() -> bool,
    ) -> Option<Vec<Event>> {
        let mut results = Vec::with_capacity(reply.tool_calls.len());
        for call in &reply.tool_calls {
            if is_over() {
                return None;
            }
            results.push((call, self.tools.run(call)));
        }
        if is_over() {
            return None;
        }
        let mut said = Message::assistant(reply.text.clone());
        said.reasoning_content = reply.thinking.clone();
        said.tool_calls = reply.tool_calls.clone();
        self.history.push(said);
        let events = results.into_iter().map(|(call, result)| {
            let event = Event::ToolResult {
                id: call.id.clone(),
                name: call.name.clone(),
                content: result.content.clone(),
            };
            self.history.push(result);
            event
        });
        Some(events.collect())
    }
}

#[cfg(test)]
mod tests;
