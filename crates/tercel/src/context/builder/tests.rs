//! The worked examples, and what holds for every budget.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::context::{BlockKind, BlockLimit, BlockOutcome, ToolBudget, ToolScope};
use crate::testing::{chaotic, engine};

fn words(text: &str) -> usize {
    text.split_whitespace().count()
}

fn known(tokens: usize) -> Block {
    Block::counted("", tokens)
}

/// The tokens left after each block.
fn left(report: &BudgetReport) -> Vec<usize> {
    report
        .blocks
        .iter()
        .map(|block| block.remaining_tokens)
        .collect()
}

fn outcomes(report: &BudgetReport) -> Vec<(BlockKind, BlockOutcome, Option<BlockLimit>)> {
    let blocks = report.blocks.iter();
    blocks
        .map(|block| (block.kind, block.outcome, block.reason))
        .collect()
}

use BlockKind::{Summary, System, Tool, Turn, User};
use BlockOutcome::{Dropped, Kept as Whole, Shortened};

#[test]
fn a_history_of_3600_tokens_leaves_208_of_3808() {
    let mut budget = ContextBudget::new(4096, 256);
    budget.margin_tokens = 32;
    assert_eq!(budget.prompt_tokens(), 3808);
    let builder = ContextBuilder::new(budget)
        .turn(known(3600), "")
        .user(known(0));
    let (_, report) = builder.messages(&words).expect("it fits");
    assert_eq!((report.budget_tokens, report.remaining_tokens), (3808, 208));
}

#[test]
fn the_worked_example_comes_out_block_by_block() {
    let mut budget = ContextBudget::new(4096, 256);
    budget.summary_tokens = Some(600);
    budget.window_turns = Some(6);
    budget.tool_outputs = Some(ToolBudget {
        tokens: 900,
        scope: ToolScope::PerOutput,
    });
    let builder = ContextBuilder::new(budget)
        .system(known(220))
        .summary(known(540))
        .turn(known(310), "")
        .turn(known(360), "")
        .turn(known(420), "")
        .turn(known(390), "")
        .tool_output("A", known(520))
        .tool_output("B", known(610))
        .user(known(0));
    let (_, report) = builder.messages(&words).expect("it fits");
    assert_eq!(report.budget_tokens, 3840);
    assert_eq!(
        left(&report),
        [3620, 3080, 3080, 2690, 2270, 1910, 1600, 1080, 470]
    );
    let names: Vec<&str> = report
        .blocks
        .iter()
        .filter_map(|b| b.name.as_deref())
        .collect();
    assert_eq!(names, ["4", "3", "2", "1", "A", "B"]);
    assert!(report.blocks.iter().all(|block| block.outcome == Whole));
    assert_eq!(report.prompt_tokens + report.remaining_tokens, 3840);

    // The same limit for both outputs together has room for the first alone.
    let mut per_request = builder;
    per_request.budget_mut().tool_outputs = Some(ToolBudget {
        tokens: 900,
        scope: ToolScope::PerRequest,
    });
    let (_, report) = per_request.messages(&words).expect("it fits");
    assert_eq!(report.remaining_tokens, 1080);
    let last = report.blocks.last().expect("tool B");
    assert_eq!(
        (last.outcome, last.reason),
        (Dropped, Some(BlockLimit::ToolOutputs))
    );
}

#[test]
fn a_limit_of_900_keeps_the_first_of_three_chunks() {
    let mut budget = ContextBudget::new(4096, 256);
    budget.tool_outputs = Some(ToolBudget {
        tokens: 900,
        scope: ToolScope::PerOutput,
    });
    let chunks = [420, 520, 460].map(|tokens| Block::counted(format!("diff {tokens}"), tokens));
    let builder = ContextBuilder::new(budget)
        .tool_chunks("diff", chunks.to_vec())
        .user("What changed?");
    let (messages, report) = builder.messages(&words).expect("it fits");
    let diff = &report.blocks[1];
    // The first two have 940.
    assert_eq!(
        (diff.tokens, diff.kept_tokens, diff.dropped_parts),
        (1400, 420, 2)
    );
    assert_eq!(
        (diff.outcome, diff.reason),
        (Shortened, Some(BlockLimit::ToolOutputs))
    );
    assert_eq!(
        messages[0].content,
        "Output of diff:\ndiff 420\n\n[2 of 3 parts left out]\n\nWhat changed?"
    );
}

fn everything(context: usize) -> ContextBuilder {
    ContextBuilder::new(ContextBudget::new(context, 10))
        .system("Be brief.")
        .summary("Goal: a b c\nTone: d\n")
        .turn("one two three", "four five")
        .turn("six seven", "eight")
        .tool_output(
            "search",
            "first a b c d e f g\n\nsecond a b c d e f g\n\nthird a b c d e f g",
        )
        .user("And now?")
}

#[test]
fn outputs_are_trimmed_before_turns_and_turns_before_the_summary() {
    let of = |tokens: usize| {
        let (text, report) = everything(tokens + 10).text(&words).expect("it fits");
        assert!(report.prompt_tokens <= tokens, "{report:?}");
        let outcomes = outcomes(&report);
        (text, outcomes, report)
    };
    let (text, _, report) = of(100);
    assert_eq!(
        text,
        "System: Be brief.\n\nState:\nGoal: a b c\nTone: d\n\nUser: one two three\n\
         Assistant: four five\n\nUser: six seven\nAssistant: eight\n\n\
         Output of search:\nfirst a b c d e f g\n\nsecond a b c d e f g\n\nthird a b c d e f g\n\nUser: And now?"
    );
    assert_eq!(report.prompt_tokens, 42);
    assert!(report.blocks.iter().all(|block| block.outcome == Whole));

    let context = Some(BlockLimit::Context);
    let (text, outcomes, report) = of(41);
    assert_eq!(outcomes[5], (Tool, Shortened, context));
    // Two chunks and the note of the one that is missing.
    assert!(
        text.contains("e f g\n\n[1 of 3 parts left out]\n\nUser"),
        "{text}"
    );
    assert_eq!(
        (report.blocks[5].dropped_parts, report.blocks[5].kept_tokens),
        (1, 22)
    );

    let (text, outcomes, _) = of(18);
    assert_eq!(outcomes[5], (Tool, Dropped, context));
    assert!(
        !text.contains("Output") && text.contains("one two three"),
        "{text}"
    );

    let (text, outcomes, _) = of(17);
    assert_eq!(
        outcomes,
        [
            (System, Whole, None),
            (Summary, Whole, None),
            (User, Whole, None),
            (Turn, Whole, None),
            (Turn, Dropped, context),
            (Tool, Dropped, context)
        ]
    );
    assert!(
        !text.contains("one two") && text.contains("six seven"),
        "{text}"
    );

    let (text, outcomes, report) = of(9);
    assert_eq!(outcomes[1], (Summary, Shortened, context));
    assert_eq!(
        (report.blocks[1].dropped_parts, report.blocks[1].kept_tokens),
        (1, 4)
    );
    assert_eq!(
        text,
        "System: Be brief.\n\nState:\nGoal: a b c\n\nUser: And now?"
    );
    assert_eq!(of(4).0, "System: Be brief.\n\nUser: And now?");
    let error = everything(13)
        .text(&words)
        .expect_err("the base does not fit");
    assert_eq!(
        error.to_string(),
        "the prompt has 4 tokens and must leave 10 to the reply, the context holds 13"
    );
}

#[test]
fn windows_and_shares_have_their_own_reasons() {
    let mut builder = everything(200);
    builder.budget_mut().window_turns = Some(1);
    builder.budget_mut().summary_tokens = Some(4);
    let (messages, report) = builder.messages(&words).expect("it fits");
    assert_eq!(
        outcomes(&report)[1],
        (Summary, Shortened, Some(BlockLimit::SummaryTokens))
    );
    assert_eq!(
        outcomes(&report)[4],
        (Turn, Dropped, Some(BlockLimit::WindowTurns))
    );
    assert_eq!(messages[0].content, "Be brief.\n\nState:\nGoal: a b c");
    assert_eq!(messages.len(), 4);
    builder.budget_mut().window_turns = None;
    builder.budget_mut().window_tokens = Some(7);
    let (_, report) = builder.messages(&words).expect("it fits");
    assert_eq!(
        outcomes(&report)[4],
        (Turn, Dropped, Some(BlockLimit::WindowTokens))
    );
}

#[test]
fn a_budget_without_room_and_a_prompt_without_a_message_are_refused() {
    let builder = ContextBuilder::new(ContextBudget::new(100, 100)).user("hi");
    let error = builder.messages(&words).expect_err("no room");
    assert_eq!(error.kind(), "invalid_parameter");
    let builder = ContextBuilder::new(ContextBudget::new(100, 10)).system("hi");
    assert_eq!(
        builder.messages(&words).expect_err("no message").kind(),
        "empty_prompt"
    );
}

#[test]
fn an_engine_counts_the_whole_prompt() {
    let (engine, _) = engine(200, chaotic);
    let builder = ContextBuilder::new(ContextBudget::new(60, 10))
        .system("rules")
        .turn("question 1", "answer 1")
        .turn("question 2", "answer 2")
        .user("now");
    let (messages, report) = builder.messages(&engine).expect("it fits");
    // `s:rules`, `u:question 2`, `a:answer 2`, `u:now`, a line break each, and `a:`.
    assert_eq!(report.prompt_tokens, 8 + 13 + 11 + 6 + 2);
    assert_eq!(report.remaining_tokens, 10);
    let kept: Vec<usize> = report
        .blocks
        .iter()
        .map(|block| block.kept_tokens)
        .collect();
    assert_eq!(kept, [8, 8, 24, 0]);
    let reply = engine
        .generate(crate::Request::chat(messages).max_new_tokens(1))
        .expect("a reply");
    assert_eq!(reply.usage.prompt_tokens, report.prompt_tokens);
    let (text, report) = builder.text(&engine).expect("it fits");
    assert_eq!(
        (text.len(), report.prompt_tokens),
        (report.prompt_tokens, 24)
    );
}

#[test]
fn a_prompt_is_read_from_json_and_unknown_names_are_refused() {
    let json = json!({
        "budget": {
            "max_context_tokens": 4096, "max_new_tokens": 256, "summary_tokens": 600,
            "tool_outputs": {"tokens": 900, "scope": "per_output"},
        },
        "system": "rules",
        "summary": {"tokens": 540},
        "turns": [{"user": {"tokens": 300}, "assistant": "yes"}],
        "tools": [{"name": "diff", "chunks": [{"tokens": 420}, "x"]}],
        "user": {"text": "now", "tokens": 7},
    });
    let builder: ContextBuilder = serde_json::from_value(json.clone()).expect("a prompt");
    let (_, report) = builder.messages(&words).expect("it fits");
    assert_eq!(report.remaining_tokens, 3840 - 1 - 540 - 7 - 301 - 421);
    for (place, name) in [("", "users"), ("/budget", "context"), ("/turns/0", "tool")] {
        let mut json = json.clone();
        let object = json.pointer_mut(place).and_then(|it| it.as_object_mut());
        object.expect("an object").insert(name.to_owned(), json!(1));
        assert!(
            serde_json::from_value::<ContextBuilder>(json).is_err(),
            "{place} {name}"
        );
    }
    let huge = json!({"tokens": usize::MAX});
    let json = json!({"turns": [{"user": huge, "assistant": huge}], "user": huge});
    let builder: ContextBuilder = serde_json::from_value(json).expect("a prompt");
    assert_eq!(
        builder.text(&words).expect_err("too long").kind(),
        "context_overflow"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn whatever_is_kept_fits_and_adds_up(
        system in "[a-c]{0,5}( [a-c]{1,5}){0,8}",
        summary in "([a-c ]{1,9}\n){0,5}",
        turns in prop::collection::vec(("[a-c ]{1,30}", "[a-c ]{0,30}"), 0..8),
        tools in prop::collection::vec("[a-c \n]{0,60}", 0..4),
        context in 2..90_usize,
        limits in prop::array::uniform4(prop::option::of(0..30_usize)),
        per_request: bool,
        is_chat: bool,
    ) {
        let mut budget = ContextBudget::new(context, 1);
        let [summary_tokens, tool_tokens, window_turns, window_tokens] = limits;
        let scope = if per_request { ToolScope::PerRequest } else { ToolScope::PerOutput };
        budget.summary_tokens = summary_tokens;
        budget.tool_outputs = tool_tokens.map(|tokens| ToolBudget { tokens, scope });
        budget.window_turns = window_turns;
        budget.window_tokens = window_tokens;
        let mut builder = ContextBuilder::new(budget).system(system.as_str()).user("now");
        builder = builder.summary(summary.as_str());
        for (user, assistant) in &turns {
            builder = builder.turn(user.as_str(), assistant.as_str());
        }
        for text in &tools {
            builder = builder.tool_output("t", text.as_str());
        }
        let built = match is_chat {
            true => builder.messages(&words).map(|(_, report)| report),
            false => builder.text(&words).map(|(_, report)| report),
        };
        let report = match built {
            Ok(report) => report,
            Err(error) => {
                prop_assert_eq!(error.kind(), "context_overflow");
                prop_assert!(words(&system) + 1 > context - 1);
                return Ok(());
            }
        };
        prop_assert!(report.prompt_tokens < context);
        let kept: usize = report.blocks.iter().map(|block| block.kept_tokens).sum();
        prop_assert_eq!(kept, report.prompt_tokens);
        prop_assert_eq!(report.prompt_tokens + report.remaining_tokens, report.budget_tokens);
        let of = |kind| report.blocks.iter().filter(move |block| block.kind == kind);
        if let Some(most) = summary_tokens {
            prop_assert!(of(Summary).all(|block| block.kept_tokens <= most));
        }
        if let Some(most) = tool_tokens {
            let total: usize = of(Tool).map(|block| block.kept_tokens).sum();
            // What the context cuts off later leaves a note, which may be longer.
            let is_cut = of(Tool).any(|block| block.reason == Some(BlockLimit::Context));
            prop_assert!(is_cut || of(Tool).all(|block| block.kept_tokens <= most));
            prop_assert!(is_cut || !per_request || total <= most);
        }
        // Turns go from the oldest, and only once no output is left.
        let turns: Vec<BlockOutcome> = of(Turn).map(|block| block.outcome).collect();
        let whole = turns.iter().take_while(|outcome| **outcome == Whole).count();
        prop_assert!(turns[whole..].iter().all(|outcome| *outcome == Dropped));
        if of(Turn).any(|block| block.reason == Some(BlockLimit::Context)) {
            prop_assert!(of(Tool).all(|block| block.kept_tokens == 0));
        }
    }
}
