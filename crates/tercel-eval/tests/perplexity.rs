//! Perplexity of a tiny random model, against its definition.

#[path = "../../tercel/tests/tiny/mod.rs"]
mod tiny;

use std::ops::ControlFlow;

use tercel_eval::{PerplexityOptions, perplexity};
use tiny::TinyModel;

const TEXT: &str = "The quick brown fox jumps over the lazy dog, again and again and again.";

/// A model that wants a begin token: byte 1, of all things.
fn model_with_begin() -> TinyModel {
    TinyModel::new(&[
        ("tokenizer.ggml.add_bos_token", true.into()),
        ("tokenizer.ggml.bos_token_id", 1_u32.into()),
    ])
}

#[test]
fn chunks_are_cut_and_scored_as_llama_cpp_does() {
    for (model, begin) in [(TinyModel::new(&[]), None), (model_with_begin(), Some(1))] {
        let engine = model.builder().load().expect("it loads");
        let mut tokens: Vec<u32> = begin.into_iter().collect();
        tokens.extend(TEXT.bytes().map(u32::from));
        let mut expected = Vec::new();
        let mut running = Vec::new();
        for chunk in tokens.chunks_exact(16) {
            let mut chunk = chunk.to_vec();
            if let Some(begin) = begin {
                chunk[0] = begin;
            }
            // Each position on its own: from the ninth token the next one is scored.
            for position in 8..15 {
                let scores = engine
                    .score(&chunk[..position + 2], position)
                    .expect("a score");
                assert_eq!(scores.len(), 1);
                expected.push(-scores[0]);
            }
            running.push((expected.iter().sum::<f64>() / expected.len() as f64).exp());
        }

        let mut reports = Vec::new();
        let options = PerplexityOptions::default().context(16);
        let found = perplexity(&engine, TEXT, options, |report| {
            assert_eq!((report.chunk, report.chunks), (reports.len() + 1, 4));
            reports.push(report.ppl);
            ControlFlow::Continue(())
        })
        .expect("a perplexity");
        assert_eq!((found.chunks, found.tokens_scored), (4, 28));
        assert_eq!(reports.len(), running.len());
        for (found, expected) in reports.iter().zip(&running) {
            assert!(
                (found - expected).abs() < 1e-9 * expected,
                "{found} {expected}"
            );
        }
        assert_eq!(Some(&found.ppl), reports.last());
        assert!(found.stderr > 0.0 && found.stderr < found.ppl);
    }
}

#[test]
fn what_cannot_be_measured_is_refused() {
    let model = TinyModel::new(&[]);
    let engine = model.builder().load().expect("it loads");
    let go = |_| ControlFlow::Continue(());
    let options = PerplexityOptions::default();
    let cases = [
        (
            TEXT,
            options.context(3),
            "invalid_parameter",
            "4 to the engine's context of 160",
        ),
        (TEXT, options.context(161), "invalid_parameter", "is 161"),
        (
            TEXT,
            options.context(16).max_chunks(0),
            "invalid_parameter",
            "max_chunks",
        ),
        (TEXT, options.context(80), "text_too_short", "71 tokens"),
        ("", options.context(16), "text_too_short", "0 tokens"),
    ];
    for (text, options, kind, part) in cases {
        let error = perplexity(&engine, text, options, go).expect_err("refused");
        assert_eq!(error.kind(), kind);
        assert!(error.to_string().contains(part), "{error}");
    }
    let options = options.context(16);
    let stopped = perplexity(&engine, TEXT, options, |_| ControlFlow::Break(()));
    assert_eq!(stopped.expect_err("stopped").kind(), "cancelled");
    let one = perplexity(&engine, TEXT, options.max_chunks(1), go).expect("a perplexity");
    assert_eq!(one.tokens_scored, 7);
}
