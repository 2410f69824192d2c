//! The computed state of a conversation, as the engine gives and takes it.

use crate::TokenId;
use crate::engine::Engine;
use crate::error::Error;

/// Who holds the state of tokens that were computed.
pub(super) trait KeepsState {
    /// The state of these tokens, or of their first ones, for [`KeepsState::import`]; nothing where
    /// none is held.
    fn export(&self, tokens: &[TokenId]) -> Option<Vec<u8>>;

    /// Takes a state of these tokens back and gives of how many.
    fn import(&self, tokens: &[TokenId], state: &[u8]) -> Result<usize, Error>;
}

impl KeepsState for Engine {
    fn export(&self, tokens: &[TokenId]) -> Option<Vec<u8>> {
        // An engine that has ended has no state; the transcript is saved all the same.
        self.export_state(tokens).ok().flatten()
    }

    fn import(&self, tokens: &[TokenId], state: &[u8]) -> Result<usize, Error> {
        self.import_state(tokens, state)
    }
}

/// The section of a session file: how many tokens (u32), their ids (u32 each), the state.
pub(super) fn pack(tokens: &[TokenId], state: &[u8]) -> Vec<u8> {
    let count = u32::try_from(tokens.len()).unwrap_or(u32::MAX);
    let tokens = &tokens[..tokens.len().min(count as usize)];
    let ids = tokens.iter().flat_map(|id| id.to_le_bytes());
    count
        .to_le_bytes()
        .into_iter()
        .chain(ids)
        .chain(state.iter().copied())
        .collect()
}

/// The tokens and the state of a section, or what is wrong with it.
pub(super) fn unpack(section: &[u8], vocab_size: usize) -> Result<(Vec<TokenId>, &[u8]), String> {
    let cut_off = || "its state is cut off".to_owned();
    let (count, rest) = section.split_first_chunk::<4>().ok_or_else(cut_off)?;
    let bytes = u64::from(u32::from_le_bytes(*count)) * 4;
    let bytes = usize::try_from(bytes).map_err(|_| cut_off())?;
    let (ids, state) = rest.split_at_checked(bytes).ok_or_else(cut_off)?;
    let ids = ids
        .as_chunks::<4>()
        .0
        .iter()
        .map(|id| TokenId::from_le_bytes(*id));
    let tokens: Vec<TokenId> = ids.collect();
    match tokens.iter().find(|id| **id as usize >= vocab_size) {
        Some(id) => Err(format!(
            "its state has token {id}, the model has {vocab_size}"
        )),
        None => Ok((tokens, state)),
    }
}
