//! From a checked question to a reply: the one way in which all protocols reach a model.

mod ask;
mod finished;
mod running;

pub(crate) use ask::{Ask, Input};
pub(crate) use finished::{Finished, TercelBlock};
pub(crate) use running::{Piece, Running, begin, begin_several, finish_all};
