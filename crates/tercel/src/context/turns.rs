//! The turns of a conversation.

use std::ops::Range;

use tercel_text::{Message, Role};

/// Where each turn begins: the indexes of what the user said. A turn goes on to the next one.
pub(crate) fn turn_starts(messages: &[Message]) -> Vec<usize> {
    let is_user = |(_, message): &(usize, &Message)| message.role == Role::User;
    let said = messages.iter().enumerate().filter(is_user);
    said.map(|(index, _)| index).collect()
}

/// What may go of a conversation, oldest first, and last what has to stay: the latest turn. What
/// comes before the first turn goes with nothing else. System messages lie in these ranges too.
pub(super) fn parts(messages: &[Message]) -> (Vec<Range<usize>>, Range<usize>) {
    let mut starts = turn_starts(messages);
    let Some(latest) = starts.pop() else {
        return (Vec::new(), 0..messages.len());
    };
    let first = starts.first().copied().unwrap_or(latest);
    let before = &messages[..first];
    let mut older = Vec::with_capacity(starts.len() + 1);
    if before.iter().any(|message| message.role != Role::System) {
        older.push(0..first);
    }
    let ends = starts.iter().skip(1).copied().chain([latest]);
    older.extend(
        starts
            .iter()
            .copied()
            .zip(ends)
            .map(|(start, end)| start..end),
    );
    (older, latest..messages.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_is_what_the_user_says_and_all_up_to_the_next() {
        let said = |roles: &str| -> Vec<Message> {
            let role = |c| match c {
                's' => Role::System,
                'u' => Role::User,
                't' => Role::Tool,
                _ => Role::Assistant,
            };
            roles.chars().map(|c| Message::new(role(c), "x")).collect()
        };
        for (roles, older, latest) in [
            ("", vec![], 0..0),
            ("u", vec![], 0..1),
            ("su", vec![], 1..2),
            ("sauau", vec![(0, 2), (2, 4)], 4..5),
            ("suauatau", vec![(1, 3), (3, 7)], 7..8),
            ("uauat", vec![(0, 2)], 2..5),
            ("uu", vec![(0, 1)], 1..2),
            ("sa", vec![], 0..2),
        ] {
            let older = older.into_iter().map(|(start, end)| start..end).collect();
            assert_eq!(parts(&said(roles)), (older, latest), "{roles}");
        }
    }
}
