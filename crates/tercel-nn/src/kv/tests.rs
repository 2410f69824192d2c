use proptest::prelude::*;
use tercel_kernels::ops::gated_delta;

use super::*;
use crate::backend::Vector;

const FULL: Shape = Shape {
    n_heads: 2,
    n_kv_heads: 1,
    head_dim: 8,
    scale: 1.0,
    window: None,
};
const WINDOWED: Shape = Shape {
    window: Some(40),
    ..FULL
};
const TEMPLATE: Identity = Identity(1);

fn options(max_context: usize, max_sequences: usize) -> Options {
    Options {
        max_context,
        max_sequences,
        max_batch_tokens: 64,
        kv_type: KvType::F32,
        ..Options::default()
    }
}

fn recurrent() -> Recurrent {
    Recurrent {
        shape: gated_delta::Shape {
            n_key_heads: 1,
            n_value_heads: 1,
            key_dim: 2,
            value_dim: 2,
            sharing: gated_delta::Sharing::Grouped,
        },
        kernel: 2,
        conv: Vector(0),
        decay: Vector(0),
        dt_bias: Vector(0),
    }
}

/// A cache that writes a number for each token, so that what a sequence sees can be read.
struct Written(KvCache);

impl Written {
    fn new(shapes: &[Shape], recurrents: &[Recurrent], options: &Options) -> Self {
        Self(KvCache::new(shapes, recurrents, options).unwrap())
    }

    fn open(&mut self, tokens: &[u32], max_len: usize) -> Result<(SequenceId, Prefix), NnError> {
        self.0.open(tokens, tokens.len() - 1, max_len, TEMPLATE)
    }

    /// Appends tokens as a pass would.
    fn append(&mut self, id: SequenceId, tokens: &[u32]) -> Result<(), NnError> {
        self.0.extend(id, tokens)?;
        let len = self.0.len(id);
        let places: Vec<_> = (len - tokens.len()..len).map(|at| (id, at)).collect();
        for layer in 0..self.0.layers.len() {
            let (LayerKv { shape, pages }, place) = self.0.layer(layer, &places);
            let size = shape.n_kv_heads * shape.head_dim;
            let numbers: Vec<f32> = tokens
                .iter()
                .flat_map(|token| std::iter::repeat_n(*token as f32, size))
                .collect();
            pages.store(shape, &numbers, &numbers, place);
        }
        if !self.0.states.is_empty() {
            let held = self.0.sequences[id.0].tokens.clone();
            let (conv, delta) = self.0.state(0, id);
            conv.fill(held.iter().sum::<u32>() as f32);
            delta.fill(held.len() as f32);
        }
        self.0.settle(id);
        Ok(())
    }

    /// Appends all that is missing of a prompt, in passes of up to 48 tokens.
    fn prefill(&mut self, id: SequenceId, tokens: &[u32]) {
        while self.0.len(id) < tokens.len() {
            let from = self.0.len(id);
            let n = (tokens.len() - from).min(48).min(self.0.until_stop(id));
            self.append(id, &tokens[from..from + n]).unwrap();
        }
    }

    /// Checks that a sequence sees its own tokens and nothing else, and that every page is
    /// accounted for.
    fn check(&self) {
        let kv = &self.0;
        for sequence in kv.sequences.iter().filter(|it| it.is_open) {
            for (layer, group) in kv.layers.iter().zip(&kv.group_of) {
                let len = sequence.tokens.len();
                let seen = layer
                    .shape
                    .window
                    .map_or(0, |window| (len + 1).saturating_sub(window));
                for (at, token) in sequence.tokens.iter().enumerate().skip(seen) {
                    let page = sequence.tables[*group][at / PAGE];
                    assert_ne!(page, NONE, "position {at} of {len}");
                    let mut bytes = Vec::new();
                    layer.pages.read_page(page, &mut bytes);
                    // Values come after the keys, token by token.
                    let value = bytes.len() / 2 + at % PAGE * 8 * size_of::<f32>();
                    let value = bytes[value..value + 4].try_into().unwrap();
                    let value = f32::from_le_bytes(value);
                    assert_eq!(value, *token as f32, "position {at} of {len}");
                }
            }
        }
        for (number, group) in kv.groups.iter().enumerate() {
            let mut users = vec![0; group.pool.pages()];
            let tables = kv.sequences.iter().flat_map(|it| &it.tables[number]);
            let cached = kv.index.iter().map(|(_, node)| &node.pages[number]);
            for page in tables.chain(cached).filter(|page| **page != NONE) {
                users[*page as usize] += 1;
            }
            let counted: Vec<u32> = (0..users.len() as u32)
                .map(|it| group.pool.users(it))
                .collect();
            assert_eq!(users, counted);
            assert_eq!(
                users.iter().filter(|it| **it == 0).count(),
                group.pool.free()
            );
            let promised: usize = kv
                .sequences
                .iter()
                .filter(|it| it.is_open)
                .map(|it| it.promised[number])
                .sum();
            assert_eq!(promised, group.promised);
        }
        let live = kv.sequences.iter().map(|it| it.state);
        let cached = kv.index.iter().map(|(_, node)| node.state);
        let mut states: Vec<u32> = live.chain(cached).filter(|state| *state != NONE).collect();
        states.sort_unstable();
        let count = states.len();
        states.dedup();
        assert_eq!(states.len(), count, "a state has one owner");
        let mut pins = vec![0; kv.index.nodes()];
        for sequence in kv
            .sequences
            .iter()
            .filter(|it| it.is_open && it.node != NONE)
        {
            pins[sequence.node as usize] += 1;
        }
        for (id, node) in kv.index.iter() {
            assert_eq!(node.pins, pins[id as usize]);
        }
    }
}

fn text(range: std::ops::Range<u32>) -> Vec<u32> {
    range.collect()
}

#[test]
fn pages_are_handed_out_lazily_and_come_back() {
    let without = Options {
        prefix_cache: PrefixCache {
            enabled: false,
            ..PrefixCache::default()
        },
        ..options(100, 2)
    };
    let mut kv = Written::new(&[FULL; 3], &[], &without);
    let free = |kv: &Written| kv.0.usage().free_pages;
    let all = free(&kv);
    assert_eq!(all, 2 * 100usize.div_ceil(PAGE));
    let a = kv.0.add_sequence().unwrap();
    assert_eq!(free(&kv), all);
    kv.append(a, &text(0..33)).unwrap();
    assert_eq!((kv.0.len(a), free(&kv)), (33, all - 2));
    kv.0.rollback(a, 1);
    assert_eq!((kv.0.len(a), free(&kv)), (32, all - 1));
    let b = kv.0.add_sequence().unwrap();
    assert!(matches!(
        kv.0.add_sequence(),
        Err(NnError::TooManySequences { capacity: 2 })
    ));
    kv.append(b, &text(0..60)).unwrap();
    kv.append(b, &text(0..40)).unwrap();
    assert!(matches!(
        kv.append(b, &[1]),
        Err(NnError::KvFull {
            capacity: 100,
            needed: 101
        })
    ));
    kv.check();
    kv.0.remove_sequence(a);
    kv.0.remove_sequence(b);
    assert_eq!(free(&kv), all);
    assert!(matches!(kv.append(a, &[1]), Err(NnError::UnknownSequence)));
}

#[test]
fn the_worked_numbers_of_the_kv_formula() {
    // 2 * layers * kv_heads * head_dim * tokens * 2 bytes: 256 MiB for 32 layers of 8 heads
    // of 128 at 2048 tokens, 131,072 bytes a token.
    let shape = Shape {
        n_heads: 32,
        n_kv_heads: 8,
        head_dim: 128,
        scale: 1.0,
        window: None,
    };
    let bytes = |kv_type, max_context, max_sequences| {
        let options = Options {
            kv_type,
            ..options(max_context, max_sequences)
        };
        let parts = Geometry::of(&[shape; 32], &[], &options).parts();
        assert_eq!(parts.len(), 1);
        assert_eq!(parts[0].bytes, parts[0].pages * parts[0].page_bytes);
        parts[0].bytes
    };
    assert_eq!(bytes(KvType::F16, 2048, 1), 268_435_456);
    assert_eq!(bytes(KvType::F16, 1024, 1), 128 << 20);
    assert_eq!(bytes(KvType::F16, 4096, 1), 512 << 20);
    assert_eq!(bytes(KvType::F16, 2048, 2), 512 << 20);
    assert_eq!(bytes(KvType::F16, 32, 1), 32 * 131_072);
    assert_eq!(bytes(KvType::F32, 2048, 1), 512 << 20);
}

/// Pages of a window that no later token sees stay with the prefix as long as there is room; a
/// sequence that goes on from it must get its own all the same.
#[test]
fn a_prompt_that_fills_the_cache_of_its_window_is_gone_on_from() {
    for (len, cached_pages) in [(1000, 8), (1000, 0), (992, 8), (700, 20)] {
        let mut options = options(1024, 1);
        // Pages of both layers.
        options.prefix_cache.bytes = Some(cached_pages * 2 * 2048);
        let mut cache = Written::new(&[FULL, WINDOWED], &[], &options);
        let mut prompt: Vec<u32> = (0..len).collect();
        for turn in 0..3 {
            let (id, prefix) = cache.open(&prompt, 1024).unwrap();
            if turn > 0 {
                assert_eq!(prefix.tokens, prompt.len() - 1, "{len}, {cached_pages}");
            }
            cache.prefill(id, &prompt);
            cache.check();
            cache.0.remove_sequence(id);
            prompt.push(7);
        }
    }
}

#[test]
fn a_window_takes_no_more_than_it_sees() {
    let shapes = [FULL, WINDOWED, WINDOWED];
    let options = options(3200, 2);
    let parts = Geometry::of(&shapes, &[], &options).parts();
    let kinds: Vec<_> = parts
        .iter()
        .map(|it| (it.window, it.layers, it.pages))
        .collect();
    // 40 tokens lie in at most three pages, one more for where they begin, and two for a pass.
    assert_eq!(kinds, [(None, 1, 200), (Some(40), 2, 2 * 4 + 2)]);
    let mut kv = Written::new(&shapes, &[], &options);
    let (a, _) = kv.open(&text(0..3000), 3200).unwrap();
    let (b, _) = kv.open(&text(5000..8000), 3200).unwrap();
    for start in (0..3000).step_by(32) {
        kv.append(a, &text(start..start + 32)).unwrap();
        kv.append(b, &text(5000 + start..5000 + start + 32))
            .unwrap();
        kv.check();
    }
}

#[test]
fn a_sequence_goes_on_from_what_another_left() {
    for (shapes, recurrents) in [
        (vec![FULL; 2], vec![]),
        (vec![FULL, WINDOWED], vec![]),
        (vec![WINDOWED], vec![]),
        (vec![FULL], vec![recurrent()]),
    ] {
        let hybrid = !recurrents.is_empty();
        let mut kv = Written::new(&shapes, &recurrents, &options(1024, 2));
        let shared = text(0..512);
        let first = [shared.clone(), text(1000..1050)].concat();
        let (a, prefix) = kv.open(&first, 1024).unwrap();
        assert_eq!((prefix.tokens, prefix.miss), (0, Some(Miss::NotCached)));
        kv.prefill(a, &first);
        // While the first is still open, whole pages are shared already.
        let second = [shared.clone(), text(2000..2040)].concat();
        let (b, prefix) = kv.open(&second, 1024).unwrap();
        assert_eq!((prefix.tokens, prefix.miss), (512, None), "{shapes:?}");
        kv.check();
        kv.prefill(b, &second);
        kv.check();
        // The reply of the first, and its next turn.
        kv.append(a, &text(3000..3001)).unwrap();
        kv.append(a, &text(3001..3002)).unwrap();
        kv.0.remove_sequence(a);
        kv.check();
        let turn = [first.clone(), text(3000..3002), text(4000..4010)].concat();
        let (a, prefix) = kv.open(&turn, 1024).unwrap();
        assert_eq!((prefix.tokens, prefix.miss), (564, None), "{shapes:?}");
        kv.check();
        kv.prefill(a, &turn);
        kv.check();
        if hybrid {
            let (_, delta) = kv.0.state(0, a);
            assert_eq!(delta[0], turn.len() as f32);
        }
        // The same prompt once more: all but its last token, or the last state that was kept.
        kv.0.remove_sequence(b);
        let (b, prefix) = kv.open(&second, 1024).unwrap();
        let most = if hybrid { 544 } else { 551 };
        assert_eq!(prefix.tokens, most, "{shapes:?}");
        kv.check();
        // Another template.
        kv.0.remove_sequence(b);
        let (_, prefix) = kv.0.open(&second, 551, 1024, Identity(2)).unwrap();
        assert_eq!((prefix.tokens, prefix.miss), (0, Some(Miss::OtherIdentity)));
        kv.check();
        let usage = kv.0.usage();
        assert_eq!((usage.hits, usage.misses), (3, 2));
        assert_eq!(usage.reused_tokens, (512 + 564 + most) as u64);
    }
}

#[test]
fn a_sequence_in_the_middle_of_a_page_writes_a_copy() {
    let mut kv = Written::new(&[FULL, WINDOWED], &[], &options(128, 2));
    let (a, _) = kv.open(&text(0..50), 128).unwrap();
    kv.prefill(a, &text(0..50));
    kv.0.remove_sequence(a);
    let turn = [text(0..40), text(90..100)].concat();
    let (b, prefix) = kv.open(&turn, 128).unwrap();
    assert_eq!(prefix.tokens, 40);
    kv.prefill(b, &turn);
    kv.check();
    let (c, prefix) = kv.open(&text(0..60), 128).unwrap();
    assert_eq!(prefix.tokens, 50, "the first is as it was");
    kv.prefill(c, &text(0..60));
    kv.check();
}

#[test]
fn settings_of_the_prefix_cache() {
    let with = |cache: PrefixCache| {
        let options = Options {
            prefix_cache: cache,
            ..options(256, 1)
        };
        let mut kv = Written::new(&[FULL], &[], &options);
        let (a, _) = kv.open(&text(0..200), 256).unwrap();
        kv.prefill(a, &text(0..200));
        kv.0.remove_sequence(a);
        kv.check();
        kv.open(&text(0..100), 256).unwrap().1
    };
    let cache = PrefixCache::default();
    assert_eq!(
        with(cache.clone()),
        Prefix {
            tokens: 99,
            miss: None
        }
    );
    let off = PrefixCache {
        enabled: false,
        ..cache.clone()
    };
    assert_eq!(
        with(off),
        Prefix {
            tokens: 0,
            miss: Some(Miss::Disabled)
        }
    );
    let long = PrefixCache {
        min_tokens: 100,
        ..cache.clone()
    };
    assert_eq!(
        with(long),
        Prefix {
            tokens: 0,
            miss: Some(Miss::TooShort)
        }
    );
    let short = PrefixCache {
        max_tokens: 64,
        ..cache
    };
    assert_eq!(
        with(short),
        Prefix {
            tokens: 64,
            miss: None
        }
    );
}

#[test]
fn the_longest_unused_goes_first() {
    let small = PrefixCache {
        bytes: Some(0),
        ..PrefixCache::default()
    };
    let options = Options {
        prefix_cache: small,
        ..options(128, 1)
    };
    let mut kv = Written::new(&[FULL], &[], &options);
    let mut run = |tokens: &[u32]| {
        let (id, prefix) = kv.open(tokens, 128).unwrap();
        kv.prefill(id, tokens);
        kv.0.remove_sequence(id);
        kv.check();
        prefix.tokens
    };
    // Five pages: room for two prompts of two pages, not for three.
    let [a, b, c] = [0, 1000, 2000].map(|start| text(start..start + 64));
    assert_eq!([run(&a), run(&b), run(&a), run(&c)], [0, 0, 63, 0]);
    assert_eq!([run(&a), run(&b)], [63, 0]);
}

#[test]
fn what_may_not_fit_waits() {
    let options = Options {
        kv_tokens: Some(128),
        ..options(128, 3)
    };
    let mut kv = Written::new(&[FULL], &[], &options);
    let pages = 128 / PAGE + 3;
    let (a, _) = kv.open(&text(0..10), 128).unwrap();
    let (_, _) = kv.open(&text(0..10), 96).unwrap();
    assert_eq!(kv.0.groups[0].promised, pages);
    let refused = kv.open(&text(0..10), 1).unwrap_err();
    assert!(
        matches!(refused, NnError::KvBusy { tokens: 1 }),
        "{refused}"
    );
    kv.0.remove_sequence(a);
    kv.open(&text(0..10), 128).unwrap();
    kv.check();
}

#[derive(Clone, Debug)]
enum Step {
    Open {
        text: Vec<u8>,
        max: usize,
        identity: u64,
    },
    Append {
        sequence: usize,
        n: usize,
    },
    RollBack {
        sequence: usize,
        n: usize,
    },
    Close {
        sequence: usize,
    },
    Clear,
}

fn step() -> impl Strategy<Value = Step> {
    // Pieces of 16 equal tokens, so that prompts often begin alike and part within a page.
    let text = prop::collection::vec(0..3u8, 1..16);
    prop_oneof![
        4 => (text, 1..300usize, 0..2u64).prop_map(|(text, max, identity)| Step::Open { text, max, identity }),
        6 => (0..4usize, 1..64usize).prop_map(|(sequence, n)| Step::Append { sequence, n }),
        1 => (0..4usize, 1..8usize).prop_map(|(sequence, n)| Step::RollBack { sequence, n }),
        3 => (0..4usize).prop_map(|sequence| Step::Close { sequence }),
        1 => Just(Step::Clear),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    /// Whatever happens, sequences see their own tokens, every page is accounted for, and what
    /// was promised can be had.
    #[test]
    fn no_page_is_lost_or_taken_twice(
        kind in 0..4usize,
        cache in 0..3usize,
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let (shapes, recurrents) = match kind {
            0 => (vec![FULL; 2], vec![]),
            1 => (vec![FULL, WINDOWED], vec![]),
            2 => (vec![WINDOWED], vec![]),
            _ => (vec![FULL], vec![recurrent()]),
        };
        let bytes = [Some(0), Some(4096), None][cache];
        let options = Options {
            kv_tokens: Some(500),
            prefix_cache: PrefixCache { bytes, ..PrefixCache::default() },
            ..options(300, 4)
        };
        let mut kv = Written::new(&shapes, &recurrents, &options);
        // What is open: its tokens yet to come, the most it may have, and how many can go back.
        let mut open: Vec<(SequenceId, Vec<u32>, usize, usize)> = Vec::new();
        for step in steps {
            match step {
                Step::Open { text, max, identity } => {
                    let tokens: Vec<u32> = text
                        .iter()
                        .flat_map(|piece| std::iter::repeat_n(u32::from(*piece), 16))
                        .collect();
                    let max = max.max(tokens.len());
                    match kv.0.open(&tokens, tokens.len() - 1, max, Identity(identity)) {
                        Ok((id, prefix)) => {
                            prop_assert_eq!(kv.0.len(id), prefix.tokens);
                            open.push((id, tokens[prefix.tokens..].to_vec(), max, 0));
                        }
                        Err(NnError::KvBusy { .. } | NnError::TooManySequences { .. }) => {}
                        Err(error) => prop_assert!(false, "{}", error),
                    }
                }
                Step::Append { sequence, n } => {
                    if let Some((id, rest, max, back)) = open.get_mut(sequence) {
                        let n = if rest.is_empty() { n.min(*max - kv.0.len(*id)) } else { n.min(rest.len()).min(kv.0.until_stop(*id)) };
                        if n > 0 {
                            let is_reply = rest.is_empty();
                            let tokens: Vec<u32> = if is_reply { vec![7; n] } else { rest.drain(..n).collect() };
                            kv.append(*id, &tokens).unwrap();
                            *back = if is_reply && recurrents.is_empty() { n } else { 0 };
                        }
                    }
                }
                Step::RollBack { sequence, n } => {
                    if let Some((id, _, _, back)) = open.get_mut(sequence) {
                        kv.0.rollback(*id, n.min(*back));
                        *back = 0;
                    }
                }
                Step::Close { sequence } => {
                    if sequence < open.len() {
                        kv.0.remove_sequence(open.remove(sequence).0);
                    }
                }
                Step::Clear => kv.0.clear_prefixes(),
            }
            kv.check();
        }
        for (id, ..) in open {
            kv.0.remove_sequence(id);
        }
        kv.0.clear_prefixes();
        kv.check();
        let usage = kv.0.usage();
        prop_assert_eq!(usage.free_pages, usage.pages);
        prop_assert_eq!(usage.failures, 0);
    }
}
