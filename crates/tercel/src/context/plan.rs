//! What of a prompt is kept, within a budget.

use tercel_text::Message;

use super::ContextOverflow;
use super::budget::{BlockKind, BlockLimit, BlockOutcome, BudgetReport, ToolScope};
use super::builder::{Block, ContextBuilder, Exchange, Output};
use super::counter::TokenCounter;
use super::ledger::{Ledger, Row};
use super::parts::Parts;
use super::search::largest;
use crate::error::Error;

/// A prompt and what its limits leave of it before anything else.
pub(super) struct Plan<'a> {
    from: &'a ContextBuilder,
    counter: &'a dyn TokenCounter,
    /// Whether it becomes a conversation.
    is_chat: bool,
    room: usize,
    summary: Parts,
    tools: Vec<Parts>,
}

/// How much of a prompt is kept.
#[derive(Clone)]
pub(super) struct Kept {
    system: bool,
    /// Lines.
    summary: usize,
    /// Turns, from the latest.
    turns: usize,
    /// Chunks of each output.
    tools: Vec<usize>,
}

impl<'a> Plan<'a> {
    pub(super) fn new(
        from: &'a ContextBuilder,
        counter: &'a dyn TokenCounter,
        is_chat: bool,
    ) -> Result<Self, Error> {
        if from.user.text.trim().is_empty() && from.user.tokens.is_none() {
            return Err(Error::EmptyPrompt);
        }
        let budget = &from.budget;
        let room = budget.prompt_tokens();
        if room == 0 {
            let most = budget.max_context_tokens.saturating_sub(1);
            return Err(Error::invalid_parameter(
                "max_new_tokens",
                format!(
                    "{} (with {} of margin)",
                    budget.max_new_tokens, budget.margin_tokens
                ),
                format!("at most {most}, the margin included"),
            ));
        }
        let parts = |tool: &Output| match tool.chunks.as_slice() {
            [] => Parts::chunks(&tool.text),
            chunks => Parts::given(chunks),
        };
        Ok(Self {
            from,
            counter,
            is_chat,
            room,
            summary: Parts::lines(&from.summary),
            tools: from.tools.iter().map(parts).collect(),
        })
    }

    pub(super) fn fit(&self) -> Result<(Kept, BudgetReport), Error> {
        let limited = self.limited();
        let kept = self.trimmed(&limited)?;
        let report = self.report(&limited, &kept)?;
        Ok((kept, report))
    }

    /// What the limits of the parts leave.
    fn limited(&self) -> Kept {
        let budget = &self.from.budget;
        let turns = self.from.turns.iter().rev();
        let mut of_turns = 0_usize;
        let in_window = turns.take_while(|turn| {
            of_turns = of_turns.saturating_add(self.turn_tokens(turn));
            budget.window_tokens.is_none_or(|most| of_turns <= most)
        });
        let most = budget.window_turns.unwrap_or(usize::MAX);
        let turns = in_window.take(most).count();
        let mut left = budget.tool_outputs.map(|limit| limit.tokens);
        let mut tools = Vec::with_capacity(self.tools.len());
        for parts in &self.tools {
            let kept = self.first_within(parts, left);
            if let (Some(limit), Some(left)) = (budget.tool_outputs, left.as_mut())
                && limit.scope == ToolScope::PerRequest
            {
                *left = left.saturating_sub(parts.tokens(kept, self.counter));
            }
            tools.push(kept);
        }
        Kept {
            system: true,
            summary: self.first_within(&self.summary, budget.summary_tokens),
            turns,
            tools,
        }
    }

    /// How many of the first parts have at most `most` tokens together.
    fn first_within(&self, parts: &Parts, most: Option<usize>) -> usize {
        let Some(most) = most else {
            return parts.len();
        };
        let found = largest(0..=parts.len(), parts.len(), |kept| {
            let fits = parts.tokens(kept, self.counter) <= most;
            Ok::<_, std::convert::Infallible>(fits.then_some(()))
        });
        let Ok(found) = found;
        found.map_or(0, |(kept, ())| kept)
    }

    /// What fits the budget: outputs are trimmed first, then turns, then the summary.
    fn trimmed(&self, limited: &Kept) -> Result<Kept, Error> {
        let mut least = self.total(limited)?;
        if least <= self.room {
            return Ok(limited.clone());
        }
        let mut attempt = |kept: Kept| {
            let tokens = self.total(&kept)?;
            least = least.min(tokens);
            Ok::<_, Error>((tokens <= self.room).then_some(kept))
        };
        let mut base = limited.clone();
        let chunks: usize = limited.tools.iter().sum();
        let found = largest_below(chunks, |kept| {
            attempt(Kept {
                tools: first_of(&limited.tools, kept),
                ..base.clone()
            })
        })?;
        if let Some(kept) = found {
            return Ok(kept);
        }
        base.tools.fill(0);
        let found = largest_below(limited.turns, |turns| {
            attempt(Kept {
                turns,
                ..base.clone()
            })
        })?;
        if let Some(kept) = found {
            return Ok(kept);
        }
        base.turns = 0;
        let found = largest_below(limited.summary, |summary| {
            attempt(Kept {
                summary,
                ..base.clone()
            })
        })?;
        found.ok_or_else(|| Error::ContextReserve {
            policy: ContextOverflow::Error,
            prompt_tokens: least,
            reserve_tokens: self.from.budget.max_context_tokens - self.room,
            max_context: self.from.budget.max_context_tokens,
        })
    }

    /// The account, block by block: what each takes is what the prompt grows by with it.
    fn report(&self, limited: &Kept, kept: &Kept) -> Result<BudgetReport, Error> {
        let from = self.from;
        let none = Kept {
            system: false,
            summary: 0,
            turns: 0,
            tools: vec![0; self.tools.len()],
        };
        // The latest message is there from the start: without it there is no conversation.
        let of_user = self.total(&none)?;
        let mut ledger = Ledger {
            before: of_user,
            remaining: self.room,
            blocks: Vec::new(),
        };
        let mut so_far = none;
        if from.system != Block::default() {
            so_far.system = true;
            let row = Row::whole(BlockKind::System, self.count(&from.system));
            ledger.add(row, self.total(&so_far)?);
        }
        if from.summary != Block::default() {
            so_far.summary = kept.summary;
            let tokens = self.count(&from.summary);
            let limits = [
                (limited.summary, BlockLimit::SummaryTokens),
                (kept.summary, BlockLimit::Context),
            ];
            let row = Row::parts(BlockKind::Summary, tokens, self.summary.len(), limits);
            ledger.add(row, self.total(&so_far)?);
        }
        ledger.add_user(self.count(&from.user), of_user);
        for (age, turn) in from.turns.iter().rev().enumerate() {
            let mut row = Row::whole(BlockKind::Turn, self.turn_tokens(turn));
            row.name = Some((from.turns.len() - age).to_string());
            if age < kept.turns {
                so_far.turns = age + 1;
            } else {
                row.outcome = BlockOutcome::Dropped;
                row.reason = Some(if age < limited.turns {
                    BlockLimit::Context
                } else if from.budget.window_turns.is_some_and(|most| age >= most) {
                    BlockLimit::WindowTurns
                } else {
                    BlockLimit::WindowTokens
                });
            }
            ledger.add(row, self.total(&so_far)?);
        }
        for (at, parts) in self.tools.iter().enumerate() {
            so_far.tools[at] = kept.tools[at];
            let limits = [
                (limited.tools[at], BlockLimit::ToolOutputs),
                (kept.tools[at], BlockLimit::Context),
            ];
            let tokens = parts.tokens(parts.len(), self.counter);
            let mut row = Row::parts(BlockKind::Tool, tokens, parts.len(), limits);
            row.name = Some(from.tools[at].name.clone());
            ledger.add(row, self.total(&so_far)?);
        }
        Ok(BudgetReport {
            budget_tokens: self.room,
            prompt_tokens: ledger.before,
            remaining_tokens: self.room.saturating_sub(ledger.before),
            blocks: ledger.blocks,
        })
    }

    /// Tokens of the prompt.
    fn total(&self, kept: &Kept) -> Result<usize, Error> {
        let whole = if self.is_chat {
            self.counter.count_messages(&self.messages(kept))?
        } else {
            self.counter.count_prompt(&self.text(kept))
        };
        if let Some(tokens) = whole {
            return Ok(tokens);
        }
        let system = if kept.system {
            self.count(&self.from.system)
        } else {
            0
        };
        let turns = self.turns(kept).map(|turn| self.turn_tokens(turn));
        let tools = self.tools.iter().zip(&kept.tools);
        let tools = tools.map(|(parts, kept)| parts.tokens(*kept, self.counter));
        let summary = self.summary.tokens(kept.summary, self.counter);
        let parts = [system, summary, self.count(&self.from.user)];
        let all = parts.into_iter().chain(turns).chain(tools);
        Ok(all.fold(0, usize::saturating_add))
    }

    pub(super) fn messages(&self, kept: &Kept) -> Vec<Message> {
        let mut messages = Vec::new();
        let system = if kept.system {
            self.from.system.text.as_str()
        } else {
            ""
        };
        let state = labelled("State", &self.summary.text(kept.summary));
        let system = joined([system.to_owned(), state]);
        if !system.is_empty() {
            messages.push(Message::system(system));
        }
        for turn in self.turns(kept) {
            messages.push(Message::user(&turn.user.text));
            if !turn.assistant.text.is_empty() {
                messages.push(Message::assistant(&turn.assistant.text));
            }
        }
        let said = self.from.user.text.clone();
        messages.push(Message::user(joined(self.outputs(kept).chain([said]))));
        messages
    }

    pub(super) fn text(&self, kept: &Kept) -> String {
        let of = |name: &str, text: &str| match text {
            "" => String::new(),
            text => format!("{name}: {text}"),
        };
        let system = if kept.system {
            self.from.system.text.as_str()
        } else {
            ""
        };
        let base = [
            of("System", system),
            labelled("State", &self.summary.text(kept.summary)),
        ];
        let turns = self.turns(kept).map(|turn| {
            let said = [
                of("User", &turn.user.text),
                of("Assistant", &turn.assistant.text),
            ];
            said.into_iter()
                .filter(|text| !text.is_empty())
                .collect::<Vec<_>>()
                .join("\n")
        });
        let said = of("User", &self.from.user.text);
        let all = base.into_iter().chain(turns).chain(self.outputs(kept));
        joined(all.chain([said]))
    }

    /// The turns that are kept, oldest first.
    fn turns(&self, kept: &Kept) -> impl Iterator<Item = &'a Exchange> {
        let first = self.from.turns.len() - kept.turns;
        self.from.turns[first..].iter()
    }

    fn outputs(&self, kept: &Kept) -> impl Iterator<Item = String> {
        let outputs = self.tools.iter().zip(&kept.tools).zip(&self.from.tools);
        outputs.map(|((parts, kept), tool)| {
            let text = if *kept == 0 {
                String::new()
            } else {
                parts.text(*kept)
            };
            labelled(&format!("Output of {}", tool.name), &text)
        })
    }

    fn count(&self, block: &Block) -> usize {
        match block.tokens {
            Some(tokens) => tokens,
            None if block.text.is_empty() => 0,
            None => self.counter.count(&block.text),
        }
    }

    fn turn_tokens(&self, turn: &Exchange) -> usize {
        self.count(&turn.user)
            .saturating_add(self.count(&turn.assistant))
    }
}

/// The result for the largest number below `limit` that has one.
fn largest_below<T>(
    limit: usize,
    attempt: impl FnMut(usize) -> Result<Option<T>, Error>,
) -> Result<Option<T>, Error> {
    let Some(most) = limit.checked_sub(1) else {
        return Ok(None);
    };
    let found = largest(0..=most, most, attempt)?;
    Ok(found.map(|(_, found)| found))
}

/// The first `count` of so many chunks of each output.
fn first_of(outputs: &[usize], mut count: usize) -> Vec<usize> {
    let take = |chunks: &usize| {
        let kept = count.min(*chunks);
        count -= kept;
        kept
    };
    outputs.iter().map(take).collect()
}

fn labelled(label: &str, text: &str) -> String {
    if text.is_empty() {
        return String::new();
    }
    format!("{label}:\n{}", text.trim_end())
}

/// What is not empty, with empty lines between.
fn joined(texts: impl IntoIterator<Item = String>) -> String {
    let texts = texts.into_iter().filter(|text| !text.is_empty());
    texts.collect::<Vec<_>>().join("\n\n")
}
