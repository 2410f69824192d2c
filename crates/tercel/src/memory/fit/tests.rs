//! What fits, and models that are only described.

use std::path::PathBuf;

use super::*;
use crate::memory::KvSize;

fn checkpoints() -> Vec<PathBuf> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../test-data/checkpoints");
    let entries = std::fs::read_dir(root).expect("committed");
    let mut all: Vec<PathBuf> = entries
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.join("config.json").is_file())
        .collect();
    all.sort();
    assert!(all.len() > 30);
    all
}

fn options_of_test() -> Options {
    Options {
        max_outputs: 3,
        ..options(64, Some(3), 32, 2)
    }
}

/// Its configuration says float32, its tensors are of type BF16: the converter left the field.
const WRONG_TYPE: &str = "qwen3_5-mlx-bf16";

/// A configuration is as good as the files, whatever the family.
#[test]
fn a_model_takes_the_same_described_by_its_configuration() {
    for path in checkpoints() {
        let name = path
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        let whole = Blueprint::open(&path).expect(&name);
        let described = Blueprint::open(path.join("config.json")).expect(&name);
        assert_eq!(whole.described(), None);
        assert_eq!(described.described(), Some(Described::ByConfiguration));
        let look = |blueprint: &Blueprint| {
            blueprint.with_checkpoint(|checkpoint| {
                let info = Runner::describe(checkpoint).expect(&name);
                let memory = estimate(checkpoint, &options_of_test()).expect(&name);
                Ok((info.architecture, info.parameters, memory))
            })
        };
        let (mut got, want) = (look(&described).expect(&name), look(&whole).expect(&name));
        if name == WRONG_TYPE {
            assert_ne!(got.2.weights_bytes, want.2.weights_bytes);
            got.2.weights_bytes = want.2.weights_bytes;
        }
        assert_eq!(got, want, "{name}");
    }
}

#[test]
fn the_largest_that_fits_is_found() {
    for (least, most, limit, want) in [
        (2, 100, 50, 50),
        (2, 100, 1, 0),
        (2, 100, 2, 2),
        (2, 100, 99, 99),
        (2, 100, 100, 100),
        (2, 100, 1000, 100),
        (1, 1, 1, 1),
        (5, 4, 9, 0),
    ] {
        let mut asked = 0;
        let found = largest(least, most, |n| {
            asked += 1;
            Ok(n <= limit)
        });
        assert_eq!(found.ok(), Some(want), "{least} {most} {limit}");
        assert!(asked <= 9, "{asked}");
    }
}

#[test]
fn what_is_said_to_fit_does_and_one_more_does_not() {
    for path in checkpoints() {
        let blueprint = Blueprint::open(&path).expect("a checkpoint");
        let of = |context: Option<usize>, sequences: usize, budget: u64| {
            blueprint.fit(&FitOptions {
                max_context: context,
                sequences: Some(sequences),
                budget_bytes: Some(budget),
                threads: Some(2),
                ..FitOptions::default()
            })
        };
        // Room for about twice what one sequence takes beside what is always taken.
        let one = of(Some(32), 1, u64::MAX).expect("a fit");
        let budget = one.total_bytes + 3 * (one.kv_bytes() + one.recurrent_bytes);
        let fit = of(Some(32), 1, budget).expect("a fit");
        assert_eq!((fit.fits, fit.limit_is_budget), (Some(true), true));
        let total = fit.breakdown().total_bytes();
        assert_eq!(total, fit.total_bytes, "{}", path.display());

        let context = fit.largest_context.expect("a limit");
        assert!(context >= 32, "{context}");
        assert_eq!(
            of(Some(context), 1, budget).expect("a fit").fits,
            Some(true)
        );
        if context < fit.model.trained_context {
            assert_eq!(
                of(Some(context + 1), 1, budget).expect("a fit").fits,
                Some(false)
            );
        }
        let sequences = fit.largest_sequences.expect("a limit");
        assert!((1..MOST_SEQUENCES).contains(&sequences), "{sequences}");
        assert_eq!(
            of(Some(32), sequences, budget).expect("a fit").fits,
            Some(true)
        );
        assert_eq!(
            of(Some(32), sequences + 1, budget).expect("a fit").fits,
            Some(false)
        );

        let none = of(Some(32), 1, 1).expect("a fit");
        assert_eq!(
            (none.fits, none.largest_context, none.largest_sequences),
            (Some(false), Some(0), Some(0))
        );
    }
}

#[test]
fn the_arithmetic_of_a_model_is_that_of_its_pages() {
    for (model, heads) in [("llama", (4, 4, 2)), ("llama-head64", (1, 2, 1))] {
        let path = checkpoints().into_iter().find(|path| path.ends_with(model));
        let blueprint = Blueprint::open(path.expect("committed")).expect("a checkpoint");
        for dtype in [KvDtype::F16, KvDtype::F32, KvDtype::Q8_0] {
            let options = FitOptions {
                max_context: Some(128),
                sequences: Some(2),
                kv: dtype,
                ..FitOptions::default()
            };
            let fit = match blueprint.fit(&options) {
                Ok(fit) => fit,
                // Heads of 16 elements have no blocks of 32.
                Err(error) => {
                    assert_eq!((model, dtype), ("llama", KvDtype::Q8_0), "{error}");
                    continue;
                }
            };
            let shape = fit.kv_shape().expect("it attends");
            let found = (shape.layers(), shape.heads(), shape.kv_heads());
            assert_eq!(found, heads);
            let size = KvSize::new(shape, 2, 128, dtype).expect("a size");
            assert_eq!(fit.kv_bytes(), size.bytes(), "{model} {dtype}");
        }
    }
}

#[test]
fn options_out_of_range_are_refused() {
    let path = checkpoints().remove(0);
    let blueprint = Blueprint::open(path).expect("a checkpoint");
    let refused = |change: fn(&mut FitOptions)| {
        let mut options = FitOptions::default();
        change(&mut options);
        blueprint
            .fit(&options)
            .expect_err("out of range")
            .to_string()
    };
    assert!(refused(|o| o.sequences = Some(0)).contains("`sequences`"));
    assert!(refused(|o| o.sequences = Some(MOST_SEQUENCES + 1)).contains("`sequences`"));
    assert!(refused(|o| o.kv = KvDtype::Bf16).contains("`kv`"));
    assert!(refused(|o| o.max_context = Some(1 << 30)).contains("trained"));
    assert!(refused(|o| o.quantize = Some("q3".to_owned())).contains("`quantize`"));
}
