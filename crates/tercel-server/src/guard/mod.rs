//! What an operator may have looked for in prompts and replies. All of it is off unless
//! [`GuardPolicy`](crate::GuardPolicy) says otherwise, and nothing is touched then.
//!
//! The rules are fixed phrases and patterns: the same text always gets the same answer, with the
//! name of the rule. They lower a risk and do not end it.

mod fold;
mod input;
mod output;
mod patterns;
pub(crate) mod reference;
mod scan;

pub(crate) use input::check_input;
pub(crate) use output::OutputFilter;
