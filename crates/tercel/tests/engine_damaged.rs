//! A damaged model from the file to the reply: a typed error or a reply, never a panic.

mod tiny;

use std::fs;

use tercel::{Engine, Error, Message, ModelFiles, Request};
use tiny::{CONTEXT, LAYERS, TEMPLATE, TinyModel, VOCAB};

/// Files with one to three flipped bits that are loaded and run.
const DAMAGED: usize = 1500;

#[test]
fn a_damaged_model_is_refused_or_replies() {
    let model = TinyModel::new(&[]);
    model.builder().load().expect("the sound model loads");
    let sound = fs::read(&model.path).expect("the model");
    let damaged = model.path.with_file_name("damaged.gguf");
    // Everything before the weights, found by the first tensor's name.
    let header = sound
        .windows(16)
        .rposition(|w| w == b"ffn_gate.weight\x02")
        .expect("a header");
    let mut state = 7_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    let (mut refused, mut replied) = (0, 0);
    for _ in 0..DAMAGED {
        let mut bytes = sound.clone();
        for _ in 0..=random(3) {
            bytes[random(header)] ^= 1 << random(8);
        }
        fs::write(&damaged, bytes).expect("written");
        match run(&damaged.display().to_string()) {
            Ok(()) => replied += 1,
            Err(error) => {
                refused += 1;
                assert_ne!(error.kind(), "internal", "{error}");
                assert_eq!(error.to_string().lines().count(), 1, "{error}");
            }
        }
    }
    // Both happen, or the test tests nothing.
    assert!(
        refused > 100 && replied > 20,
        "{refused} refused, {replied} replied"
    );
}

#[test]
fn a_model_cut_anywhere_is_refused() {
    let model = TinyModel::new(&[]);
    run(&model.name()).expect("the sound model replies");
    let sound = fs::read(&model.path).expect("the model");
    let cut = model.path.with_file_name("cut.gguf");
    for len in (0..sound.len()).step_by(997) {
        fs::write(&cut, &sound[..len]).expect("written");
        let error = run(&cut.display().to_string()).expect_err("a cut file");
        assert_ne!(error.kind(), "internal", "{len} bytes: {error}");
    }
}

/// Looks into the file, loads it, and lets it reply in both ways.
fn run(file: &str) -> Result<(), Error> {
    // What is shown to a user must not panic either, whatever it says.
    let _ = ModelFiles::open(file).and_then(|file| file.inspect(None));
    let engine = Engine::builder(file).threads(1).max_context(64).load()?;
    let request = Request::prompt("ab").max_new_tokens(2).seed(1);
    engine.generate(request)?;
    let request = Request::chat(vec![Message::user("ab")])
        .max_new_tokens(2)
        .seed(1);
    engine.generate(request).map(drop)
}

/// What this test does not need of the module that it shares with others.
const _: (u32, usize, &str, usize) = (CONTEXT, LAYERS, TEMPLATE, VOCAB);
