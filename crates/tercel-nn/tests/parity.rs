//! Every architecture against Hugging Face transformers, and against itself.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod common;

use std::ops::ControlFlow;

use common::{Folder, gguf};
use safetensors::SafeTensors;
use tercel_formats::gguf::{Gguf, OwnedValue, Writer};
use tercel_formats::{Checkpoint, DType};
use tercel_kernels::Isa;
use tercel_nn::{
    Chunk, Identity, KvType, Miss, NnError, Options, Runner, SequenceId, Target, Wanted,
};

/// The folders that are converted to GGUF as well.
const AS_GGUF: [&str; 8] = [
    "gemma3",
    "llama",
    "llama-bias",
    "llama-rope3",
    "qwen2",
    "qwen3",
    "qwen3_5",
    "qwen3_moe",
];
/// Largest error of a logit against the reference in double precision, with a cache of single
/// floats; half floats alone cost about 1e-2 on these random weights.
const MAX_ERROR: f32 = 2e-3;
const MAX_ERROR_F16: f32 = 2e-2;

fn runner(checkpoint: &Checkpoint<'_>, options: &Options) -> Runner {
    Runner::load(checkpoint, options, &mut |_| ControlFlow::Continue(())).unwrap()
}

fn parse(gguf: &[u8]) -> Checkpoint<'_> {
    Checkpoint::from_gguf(vec![Gguf::parse(gguf).unwrap()]).unwrap()
}

/// Calls `check` with each folder, as it is and as a GGUF file.
fn every_checkpoint(mut check: impl FnMut(&str, &Folder, &Checkpoint<'_>)) {
    for folder in Folder::all() {
        check(&folder.name, &folder, &folder.checkpoint());
    }
    for name in AS_GGUF {
        let folder = Folder::open(name);
        check(&format!("{name}.gguf"), &folder, &parse(&gguf::of(&folder)));
    }
}

fn options(isa: Isa, threads: usize) -> Options {
    Options {
        max_context: 256,
        max_sequences: 3,
        max_batch_tokens: 300,
        max_outputs: 300,
        weights: Target::AsStored,
        kv_type: KvType::F16,
        threads,
        isa: Some(isa),
        ..Options::default()
    }
}

/// Logits after every token, the tokens given in chunks of `step`.
fn logits(runner: &mut Runner, tokens: &[u32], step: usize) -> Vec<f32> {
    let sequence = runner.add_sequence().unwrap();
    let mut all = Vec::new();
    for tokens in tokens.chunks(step) {
        let logits = runner
            .forward(&[Chunk {
                sequence,
                tokens,
                wanted: Wanted::All,
            }])
            .unwrap();
        (0..logits.rows()).for_each(|row| all.extend_from_slice(logits.row(row)));
    }
    runner.remove_sequence(sequence);
    all
}

fn largest(logits: &[f32]) -> u32 {
    let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    best.map_or(0, |(id, _)| id as u32)
}

fn greedy(runner: &mut Runner, prompt: &[u32], n: usize) -> Vec<u32> {
    let sequence = runner.add_sequence().unwrap();
    let mut ids = Vec::new();
    let mut tokens = prompt.to_vec();
    while ids.len() < n {
        let chunk = Chunk {
            sequence,
            tokens: &tokens,
            wanted: Wanted::Last,
        };
        let id = largest(runner.forward(&[chunk]).unwrap().row(0));
        ids.push(id);
        tokens = vec![id];
    }
    runner.remove_sequence(sequence);
    ids
}

/// Every instruction set for one checkpoint of each family, the fastest for their variants.
fn isas(name: &str) -> Vec<Isa> {
    if name.contains('-') {
        vec![Isa::detect().unwrap()]
    } else {
        Isa::available()
    }
}

#[test]
fn logits_and_greedy_ids_are_those_of_the_reference() {
    let mut wrong = Vec::new();
    every_checkpoint(|name, folder, checkpoint| {
        for isa in isas(name) {
            for (kv_type, bound) in [(KvType::F32, MAX_ERROR), (KvType::F16, MAX_ERROR_F16)] {
                let options = Options {
                    kv_type,
                    weights: Target::Exact,
                    ..options(isa, 2)
                };
                let mut runner = runner(checkpoint, &options);
                let got = logits(&mut runner, &folder.input_ids, 300);
                assert_eq!(got.len(), folder.logits.len(), "{name}");
                let errors = got.iter().zip(&folder.logits).map(|(a, b)| (a - b).abs());
                let error = errors.fold(0.0, f32::max);
                println!(
                    "{name} {} {kv_type:?}: largest error {error:.2e}",
                    isa.name()
                );
                if error >= bound {
                    wrong.push(format!("{name} {} {kv_type:?}: {error}", isa.name()));
                }
                if kv_type == KvType::F32 {
                    let ids = greedy(&mut runner, &folder.input_ids, folder.greedy_ids.len());
                    if ids != folder.greedy_ids {
                        wrong.push(format!("{name} {}: {ids:?}", isa.name()));
                    }
                }
            }
        }
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn chunks_threads_and_company_do_not_change_a_bit() {
    every_checkpoint(|name, folder, checkpoint| {
        let ids = &folder.input_ids;
        for isa in isas(name) {
            let mut one = runner(checkpoint, &options(isa, 1));
            let want = logits(&mut one, ids, 300);
            let (threads, steps): (&[usize], &[usize]) = if name.contains('-') {
                (&[2], &[1, 7])
            } else {
                (&[1, 2, 3], &[1, 7, 32, 64])
            };
            for &threads in threads {
                let mut runner = runner(checkpoint, &options(isa, threads));
                for &step in steps {
                    let same = logits(&mut runner, ids, step) == want;
                    assert!(same, "{name} {} threads {threads} step {step}", isa.name());
                }
                assert!(in_company(&mut runner, ids) == want, "{name} in company");
            }
        }
    });
}

/// Logits after every token while two other sequences share each pass.
fn in_company(runner: &mut Runner, ids: &[u32]) -> Vec<f32> {
    let [a, b, c]: [SequenceId; 3] = std::array::from_fn(|_| runner.add_sequence().unwrap());
    let mut all = Vec::new();
    for (i, tokens) in ids.chunks(24).enumerate() {
        let vocab = runner.info().vocab_size;
        let other = [5 + i as u32, 9];
        let chunks = [
            Chunk {
                sequence: a,
                tokens: &other,
                wanted: Wanted::Last,
            },
            Chunk {
                sequence: b,
                tokens,
                wanted: Wanted::All,
            },
            Chunk {
                sequence: c,
                tokens: &other[..1],
                wanted: Wanted::None,
            },
        ];
        let logits = runner.forward(&chunks).unwrap();
        assert_eq!(
            (logits.rows(), logits.row(0).len()),
            (1 + tokens.len(), vocab)
        );
        (1..logits.rows()).for_each(|row| all.extend_from_slice(logits.row(row)));
    }
    for id in [a, b, c] {
        runner.remove_sequence(id);
    }
    all
}

/// Hidden states of every token, the tokens given in chunks of `step`, beside a sequence whose
/// logits are wanted.
fn hidden(runner: &mut Runner, tokens: &[u32], step: usize) -> Vec<f32> {
    let [a, b]: [SequenceId; 2] = std::array::from_fn(|_| runner.add_sequence().unwrap());
    let mut all = Vec::new();
    for tokens in tokens.chunks(step) {
        let chunk = |sequence, wanted| Chunk {
            sequence,
            tokens,
            wanted,
        };
        let outputs = runner
            .forward(&[chunk(a, Wanted::Hidden), chunk(b, Wanted::Last)])
            .unwrap();
        assert_eq!(outputs.rows(), 1);
        (0..tokens.len()).for_each(|row| all.extend_from_slice(outputs.hidden(row)));
    }
    for id in [a, b] {
        runner.remove_sequence(id);
    }
    all
}

#[test]
fn the_head_makes_the_logits_of_the_reference_out_of_hidden_states() {
    // Matrices as single floats, one of them the embedding's.
    for (name, head) in [
        ("llama", "lm_head.weight"),
        ("gemma3", "model.embed_tokens.weight"),
    ] {
        let folder = Folder::open(name);
        let file = SafeTensors::deserialize(&folder.files[0].1).unwrap();
        let head = common::numbers(&file, head, f32::from_le_bytes);
        let options = Options {
            kv_type: KvType::F32,
            weights: Target::Exact,
            ..options(Isa::detect().unwrap(), 2)
        };
        let mut runner = runner(&folder.checkpoint(), &options);
        let width = runner.info().hidden_size;
        let states = hidden(&mut runner, &folder.input_ids, 40);
        assert_eq!(states.len(), folder.input_ids.len() * width, "{name}");
        let logits = states.chunks_exact(width).flat_map(|state| {
            let rows = head.chunks_exact(width);
            rows.map(|row| state.iter().zip(row).map(|(a, b)| a * b).sum::<f32>())
        });
        let errors = logits.zip(&folder.logits).map(|(a, b)| (a - b).abs());
        let error = errors.fold(0.0, f32::max);
        assert!(error < MAX_ERROR, "{name}: largest error {error:.2e}");
    }
}

#[test]
fn chunks_threads_and_company_do_not_change_a_bit_of_hidden_states() {
    every_checkpoint(|name, folder, checkpoint| {
        let ids = &folder.input_ids;
        let isa = Isa::detect().unwrap();
        let want = hidden(&mut runner(checkpoint, &options(isa, 1)), ids, 150);
        for (threads, step) in [(1, 1), (2, 7), (2, 64)] {
            let mut runner = runner(checkpoint, &options(isa, threads));
            let same = hidden(&mut runner, ids, step) == want;
            assert!(same, "{name} threads {threads} step {step}");
        }
    });
}

#[test]
fn tokens_that_were_taken_back_leave_no_trace() {
    every_checkpoint(|name, folder, checkpoint| {
        let ids = &folder.input_ids;
        let mut runner = runner(checkpoint, &options(Isa::detect().unwrap(), 2));
        let want = logits(&mut runner, ids, 300);
        let vocab = runner.info().vocab_size;
        assert_eq!(runner.can_roll_back(), !name.starts_with("qwen3_5"));
        if !runner.can_roll_back() {
            return;
        }
        let sequence = runner.add_sequence().unwrap();
        let chunk = |tokens| Chunk {
            sequence,
            tokens,
            wanted: Wanted::Last,
        };
        runner.forward(&[chunk(&ids[..20])]).unwrap();
        let drafted = [&ids[20..23], &[7; 6]].concat();
        runner.forward(&[chunk(&drafted)]).unwrap();
        runner.roll_back(sequence, 6);
        assert_eq!(runner.sequence_len(sequence), 23);
        let got = runner
            .forward(&[chunk(&ids[23..])])
            .unwrap()
            .row(0)
            .to_vec();
        assert!(got == want[want.len() - vocab..], "{name}");
    });
}

#[test]
fn a_sequence_that_goes_on_from_another_gives_the_same_bits() {
    every_checkpoint(|name, folder, checkpoint| {
        // Long enough for several pages, and past every window of the checkpoints.
        let ids: Vec<u32> = folder.input_ids.iter().copied().cycle().take(150).collect();
        let mut runner = runner(checkpoint, &options(Isa::detect().unwrap(), 2));
        let vocab = runner.info().vocab_size;
        let mut run = |tokens: &[u32], identity: u64| {
            let reusable = tokens.len() - 1;
            let (sequence, prefix) = runner
                .open_sequence(tokens, reusable, 200, Identity(identity))
                .unwrap();
            let mut last = Vec::new();
            while runner.sequence_len(sequence) < tokens.len() {
                let from = runner.sequence_len(sequence);
                let n = runner.until_stop(sequence).min(tokens.len() - from);
                let chunk = Chunk {
                    sequence,
                    tokens: &tokens[from..from + n],
                    wanted: Wanted::Last,
                };
                last = runner.forward(&[chunk]).unwrap().row(0).to_vec();
            }
            runner.remove_sequence(sequence);
            assert_eq!(last.len(), vocab);
            (last, prefix)
        };
        let other: Vec<u32> = ids[..110].iter().copied().chain([5, 6, 7]).collect();
        let (cold, prefix) = run(&ids, 1);
        assert_eq!((prefix.tokens, prefix.miss), (0, Some(Miss::NotCached)));
        let (cold_other, prefix) = run(&other, 2);
        assert_eq!((prefix.tokens, prefix.miss), (0, Some(Miss::OtherIdentity)));
        let (warm, prefix) = run(&ids, 1);
        assert!(prefix.tokens >= 128, "{name}: {prefix:?}");
        assert!(warm == cold, "{name}");
        // Under the first identity it shares 110 tokens with what was there.
        let (warm_other, prefix) = run(&other, 1);
        assert!(warm_other == cold_other, "{name}");
        if !name.starts_with("qwen3_5") {
            assert!(prefix.tokens >= 96, "{name}: {prefix:?}");
        }
    });
}

#[test]
fn a_refused_pass_leaves_everything_as_it_was() {
    let folder = Folder::open("llama");
    let mut runner = runner(&folder.checkpoint(), &options(Isa::detect().unwrap(), 1));
    let (a, b) = (
        runner.add_sequence().unwrap(),
        runner.add_sequence().unwrap(),
    );
    let long = vec![3; 250];
    let chunk = |sequence, tokens| Chunk {
        sequence,
        tokens,
        wanted: Wanted::Last,
    };
    runner.forward(&[chunk(a, &long)]).unwrap();
    let refused = |runner: &mut Runner, chunks: &[Chunk<'_>]| runner.forward(chunks).unwrap_err();
    let error = refused(&mut runner, &[chunk(b, &[1, 2]), chunk(a, &[1; 7])]);
    assert!(
        matches!(
            error,
            NnError::KvFull {
                capacity: 256,
                needed: 257
            }
        ),
        "{error}"
    );
    let error = refused(&mut runner, &[chunk(b, &[1, 512])]);
    assert!(matches!(
        error,
        NnError::TokenOutOfRange {
            id: 512,
            vocab_size: 512
        }
    ));
    assert!(matches!(
        refused(&mut runner, &[]),
        NnError::BatchSize { tokens: 0, .. }
    ));
    assert!(matches!(
        refused(&mut runner, &[chunk(b, &[1; 301])]),
        NnError::BatchSize { .. }
    ));
    let twice = [chunk(b, &[1]), chunk(b, &[2])];
    assert!(matches!(
        refused(&mut runner, &twice),
        NnError::RepeatedSequence
    ));
    assert_eq!((runner.sequence_len(a), runner.sequence_len(b)), (250, 0));
}

#[test]
fn the_estimate_is_what_the_load_takes() {
    every_checkpoint(|name, _, checkpoint| {
        let quantized = Target::Quantize(DType::Q8_0);
        for weights in [Target::AsStored, Target::Exact, quantized] {
            let options = Options {
                weights,
                ..options(Isa::detect().unwrap(), 2)
            };
            let estimate = Runner::estimate(checkpoint, &options).unwrap();
            let runner = runner(checkpoint, &options);
            assert_eq!(*runner.memory(), estimate, "{name} {weights:?}");
            assert_eq!(runner.info(), &Runner::describe(checkpoint).unwrap());
        }
    });
}

#[test]
fn what_a_model_cannot_honour_is_refused_by_name() {
    let file = gguf::of(&Folder::open("llama"));
    let gguf = Gguf::parse(&file).unwrap();
    let set = |key: &'static str, value: OwnedValue| (key, Some(value));
    for (name, value) in [
        ("blk.0.attn_sinks.weight", None),
        set("llama.expert_count", 8u32.into()),
        set("llama.rope.scaling.type", "yarn".into()),
        set("llama.rope.scaling.factor", f32::NAN.into()),
        set("llama.rope.scale_linear", (-1.0f32).into()),
    ] {
        let (mut writer, mut file) = (Writer::from(&gguf), Vec::new());
        match value {
            Some(value) => writer.set(name, value).unwrap(),
            None => writer
                .tensor(name, DType::F32, &[64], vec![0; 256])
                .unwrap(),
        }
        writer.write_to(&mut file).unwrap();
        let error = Runner::describe(&parse(&file)).unwrap_err().to_string();
        assert!(
            error.contains(name) && error.lines().count() == 1,
            "{name}: {error}"
        );
    }
}
