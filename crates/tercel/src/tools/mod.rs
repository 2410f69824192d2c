//! Tools: what a reply may call, and how its calls come out of it.

mod calls;
mod toolbox;

use std::sync::Arc;

use tercel_text::grammar::limits::MAX_TOOLS;
use tercel_text::grammar::{Calls as Called, Grammar, ToolGrammar};
use tercel_text::tools::{Tool, ToolFormat};

pub(crate) use calls::Calls;
pub use toolbox::{ToolFailure, Toolbox};

use crate::error::Error;

/// Whether a reply calls tools.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ToolChoice {
    /// The model decides.
    #[default]
    Auto,
    /// None is called, though the model is told of them.
    None,
    /// One is called at least.
    Required,
    /// This one is called, once.
    Named(String),
}

impl ToolChoice {
    /// What errors and logs call it.
    fn name(&self) -> &str {
        match self {
            Self::Auto => "auto",
            Self::None => "none",
            Self::Required => "required",
            Self::Named(name) => name,
        }
    }
}

/// What a request says of tools.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tools {
    pub(crate) list: Arc<[Tool]>,
    pub(crate) choice: ToolChoice,
    /// Whether a reply may have several calls.
    pub(crate) several: bool,
}

impl Default for Tools {
    fn default() -> Self {
        Self {
            list: Arc::default(),
            choice: ToolChoice::Auto,
            several: true,
        }
    }
}

impl Tools {
    /// Checks names, and that what is to be called is there.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.list.len() > MAX_TOOLS {
            let range = format!("at most {MAX_TOOLS} tools");
            return Err(Error::invalid_parameter(
                "tools",
                format!("a list of {}", self.list.len()),
                range,
            ));
        }
        for (nth, tool) in self.list.iter().enumerate() {
            let wrong = |what: &str, range: String| {
                let value = format!("a list whose tool {nth} has {what}");
                Error::invalid_parameter("tools", value, range)
            };
            tool.check().map_err(|(field, range)| {
                wrong(
                    &format!("another `{field}`"),
                    format!("tools whose `{field}` is {range}"),
                )
            })?;
            if self.list[..nth].iter().any(|it| it.name == tool.name) {
                let what = format!("the name `{}` once more", tool.name);
                return Err(wrong(&what, "tools of different names".to_owned()));
            }
        }
        let is_there = match &self.choice {
            ToolChoice::Auto | ToolChoice::None => true,
            ToolChoice::Required => !self.list.is_empty(),
            ToolChoice::Named(name) => self.list.iter().any(|it| it.name == *name),
        };
        if is_there {
            return Ok(());
        }
        const TOLD: usize = 20;
        let names: Vec<&str> = self.list.iter().map(|it| &*it.name).take(TOLD).collect();
        let more = if self.list.len() > TOLD { ", .." } else { "" };
        let range = match &*names {
            [] => "left out where there are no tools".to_owned(),
            names => format!("one of {}{more}", names.join(", ")),
        };
        let asked: String = self.choice.name().chars().take(64).collect();
        let value = format!("`{asked}`");
        Err(Error::invalid_parameter("tool_choice", value, range))
    }

    /// What reads the calls of a reply, where there may be any. Its answer may be bound to a grammar.
    pub(crate) fn calls(&self, format: ToolFormat, is_answer_bound: bool) -> Option<Calls> {
        let is_read = !self.list.is_empty() && self.choice != ToolChoice::None;
        is_read.then(|| {
            let tools = Arc::clone(&self.list);
            Calls::new(format, tools, self.are_several(), is_answer_bound)
        })
    }

    /// Whether calls must keep to a grammar, in a reply that is free else.
    fn are_bound(&self) -> bool {
        match self.choice {
            ToolChoice::Auto => self.list.iter().any(|it| it.strict),
            ToolChoice::None => !self.list.is_empty(),
            ToolChoice::Required | ToolChoice::Named(_) => true,
        }
    }

    /// The tools that a grammar lets through, with the arguments that it lets them have.
    fn callable(&self) -> Vec<Tool> {
        let is_auto = self.choice == ToolChoice::Auto;
        let chosen = self.list.iter().filter(|tool| match &self.choice {
            ToolChoice::Named(name) => tool.name == *name,
            _ => true,
        });
        let relaxed = |tool: &Tool| {
            let mut tool = tool.clone();
            if is_auto && !tool.strict {
                tool.parameters = serde_json::Value::Null;
            }
            tool
        };
        chosen.map(relaxed).collect()
    }

    /// What a reply that is written in this format keeps to, given to `compile`; nothing where it
    /// is free.
    pub(crate) fn bind<T>(
        &self,
        format: ToolFormat,
        answer: Option<&Grammar>,
        compile: impl FnOnce(Bound<'_>) -> Result<T, Error>,
    ) -> Result<Option<T>, Error> {
        let calls = match self.choice {
            _ if self.list.is_empty() => None,
            ToolChoice::Auto => Some(Called::May),
            // The answer's grammar has no calls anyway; and calls without a mark are not read.
            ToolChoice::None if answer.is_some() || format == ToolFormat::Llama => None,
            ToolChoice::None => Some(Called::Never),
            ToolChoice::Required | ToolChoice::Named(_) => Some(Called::Must),
        };
        let Some(calls) = calls else {
            let bound = answer.map(|answer| compile(Bound::Answer(answer)));
            return bound.transpose();
        };
        if answer.is_none() && !self.are_bound() {
            return Ok(None);
        }
        let callable = self.callable();
        let mut grammar = ToolGrammar::new(format, &callable);
        grammar.calls = calls;
        grammar.several = self.are_several();
        grammar.answer = answer.filter(|_| calls == Called::May);
        compile(Bound::Tools(&grammar)).map(Some)
    }

    fn are_several(&self) -> bool {
        self.several && !matches!(self.choice, ToolChoice::Named(_))
    }
}

/// What a reply keeps to.
#[derive(Clone, Copy)]
pub(crate) enum Bound<'a> {
    /// The answer to a grammar.
    Answer(&'a Grammar),
    /// Calls to the schemas of their tools.
    Tools(&'a ToolGrammar<'a>),
}

#[cfg(test)]
mod tests;
