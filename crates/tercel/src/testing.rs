//! An engine around a model made of a closure, for the tests of this crate.

use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use tercel_formats::Gguf;
use tercel_formats::gguf::Writer;
use tercel_nn::{
    Chunk, Holding, Identity, KvUsage, Logits, Miss, NnError, Prefix, SequenceId, Wanted,
};
use tercel_text::{ChatTemplate, Tokenizer};

use crate::TokenId;
use crate::draft::Drafter;
use crate::engine::{Engine, Info, Parts};
use crate::files::{MemoryUse, ModelSummary};
use crate::guide::Room;
use crate::memory::{Ledger, Policy};
use crate::model::Model;
use crate::queue::Queue;
use crate::request::Template;
use crate::sampling::Sampling;
use crate::scheduler::{Caps, Control, Scheduler};
use crate::speculate::MAX_DRAFT;
use crate::wake::Wake;

/// The token that ends a reply; the ids below are the bytes.
pub(crate) const END: TokenId = 256;
pub(crate) const VOCAB_SIZE: usize = 257;
/// Requests that the engine works at together.
pub(crate) const MAX_SEQUENCES: usize = 4;
/// Requests that may wait.
pub(crate) const QUEUE: usize = 8;

/// How many tokens each step appended.
pub(crate) type Steps = Arc<Mutex<Vec<usize>>>;

/// Whatever `row` says of the tokens so far is the model.
struct Fake<F> {
    held: Vec<Option<Vec<TokenId>>>,
    /// What the last closed sequence had.
    kept: (Identity, Vec<TokenId>),
    identities: Vec<Identity>,
    row: F,
    rows: Vec<f32>,
    /// Hidden states, which are the rows that the head leaves as they are.
    hidden: Vec<f32>,
    steps: Steps,
    max_batch: usize,
    /// What a pass takes, however many tokens it has.
    takes: Duration,
}

impl<F: FnMut(&[TokenId]) -> Vec<f32> + Send> Model for Fake<F> {
    fn open(
        &mut self,
        tokens: &[TokenId],
        reusable: usize,
        _: usize,
        identity: Identity,
    ) -> Result<(SequenceId, Prefix), NnError> {
        let shared = self.kept.1.iter().zip(&tokens[..reusable]);
        let shared = shared.take_while(|(a, b)| a == b).count();
        let shared = if self.kept.0 == identity { shared } else { 0 };
        let place = self.held.iter().position(Option::is_none);
        let place = place.unwrap_or_else(|| {
            self.held.push(None);
            self.identities.push(identity);
            self.held.len() - 1
        });
        self.held[place] = Some(tokens[..shared].to_vec());
        self.identities[place] = identity;
        let miss = (shared == 0).then_some(Miss::NotCached);
        let prefix = Prefix {
            tokens: shared,
            miss,
        };
        Ok((SequenceId(place), prefix))
    }

    fn close(&mut self, id: SequenceId) {
        self.kept = (
            self.identities[id.0],
            self.held[id.0].take().expect("it is open"),
        );
    }

    fn until_stop(&self, _: SequenceId) -> usize {
        usize::MAX
    }

    fn roll_back(&mut self, id: SequenceId, n: usize) {
        let held = self.held[id.0].as_mut().expect("it is open");
        held.truncate(held.len() - n);
    }

    fn can_roll_back(&self) -> bool {
        true
    }

    fn forward(&mut self, chunks: &[Chunk<'_>]) -> Result<Logits<'_>, NnError> {
        thread::sleep(self.takes);
        self.rows.clear();
        self.hidden.clear();
        let mut total = 0;
        for chunk in chunks {
            assert!(!chunk.tokens.is_empty(), "a part has tokens");
            total += chunk.tokens.len();
            let held = self.held[chunk.sequence.0].as_mut().expect("it is open");
            for (i, &token) in chunk.tokens.iter().enumerate() {
                held.push(token);
                let last = i + 1 == chunk.tokens.len();
                let logits = (self.row)(held);
                if chunk.wanted == Wanted::All || (last && chunk.wanted == Wanted::Last) {
                    self.rows.extend_from_slice(&logits);
                }
                if chunk.wanted == Wanted::Hidden {
                    self.hidden.extend_from_slice(&logits);
                }
            }
        }
        assert!(total <= self.max_batch, "a pass has room for its tokens");
        let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        steps.push(total);
        Ok(Logits::new(&self.rows, VOCAB_SIZE).with_hidden(&self.hidden, VOCAB_SIZE))
    }

    fn holding(&self, id: SequenceId) -> Holding {
        // A byte a token, a page a word.
        let tokens = self.held[id.0].as_ref().map_or(0, Vec::len);
        Holding {
            pages: tokens.div_ceil(4),
            taken_pages: tokens.div_ceil(4),
            bytes: tokens,
            promised_bytes: tokens,
        }
    }

    fn usage(&self) -> KvUsage {
        KvUsage {
            sequences: self.held.iter().flatten().count(),
            ..KvUsage::default()
        }
    }

    fn clear_prefixes(&mut self) {
        self.kept.1.clear();
    }

    fn export(&self, _: &[TokenId], _: Identity) -> Option<Vec<u8>> {
        None
    }

    fn import(&mut self, _: &[TokenId], _: Identity, _: &[u8]) -> Result<usize, NnError> {
        Ok(0)
    }

    fn limits(&self) -> (usize, usize) {
        (self.max_batch, self.max_batch)
    }
}

/// An engine with a context of `max_context` tokens and prefill chunks of 4.
pub(crate) fn engine(
    max_context: usize,
    row: impl FnMut(&[TokenId]) -> Vec<f32> + Send + 'static,
) -> (Engine, Steps) {
    engine_with_chunks(max_context, 4, row)
}

pub(crate) fn engine_with_chunks(
    max_context: usize,
    prefill_chunk: usize,
    row: impl FnMut(&[TokenId]) -> Vec<f32> + Send + 'static,
) -> (Engine, Steps) {
    let source = "{% for m in messages %}{{ m.role[0] }}:{{ m.content }}\n{% endfor %}a:";
    engine_with_template(source, max_context, prefill_chunk, row)
}

pub(crate) fn engine_with_template(
    source: &str,
    max_context: usize,
    prefill_chunk: usize,
    row: impl FnMut(&[TokenId]) -> Vec<f32> + Send + 'static,
) -> (Engine, Steps) {
    build(source, max_context, prefill_chunk, false, None, row)
}

/// An engine whose passes take a while, for which a faster model guesses.
pub(crate) fn engine_with_draft(
    max_context: usize,
    row: impl FnMut(&[TokenId]) -> Vec<f32> + Send + 'static,
    draft_row: impl FnMut(&[TokenId]) -> Vec<f32> + Send + 'static,
) -> Engine {
    let drafter = Drafter::new(Box::new(fake(4, draft_row).0), max_context);
    let source = "{{ messages[0].content }}";
    build(source, max_context, 4, true, Some(drafter), row).0
}

/// An engine that guesses tokens where that pays; the others never do, so that their steps are
/// known.
pub(crate) fn engine_that_guesses(
    max_context: usize,
    row: impl FnMut(&[TokenId]) -> Vec<f32> + Send + 'static,
) -> (Engine, Steps) {
    build("{{ messages[0].content }}", max_context, 4, true, None, row)
}

fn fake<F: FnMut(&[TokenId]) -> Vec<f32> + Send>(prefill_chunk: usize, row: F) -> (Fake<F>, Steps) {
    let steps = Steps::default();
    let model = Fake {
        held: Vec::new(),
        kept: (Identity::default(), Vec::new()),
        identities: Vec::new(),
        row,
        rows: Vec::new(),
        hidden: Vec::new(),
        steps: Arc::clone(&steps),
        max_batch: prefill_chunk.max(1 + MAX_DRAFT) + MAX_SEQUENCES - 1,
        takes: Duration::ZERO,
    };
    (model, steps)
}

fn build(
    source: &str,
    max_context: usize,
    prefill_chunk: usize,
    speculation: bool,
    drafter: Option<Drafter>,
    row: impl FnMut(&[TokenId]) -> Vec<f32> + Send + 'static,
) -> (Engine, Steps) {
    let (mut model, steps) = fake(prefill_chunk, row);
    if drafter.is_some() {
        model.takes = Duration::from_micros(500);
    }
    let tokenizer = Arc::new(byte_tokenizer());
    let control = Arc::new(Control::default());
    let queue = Arc::new(Queue::new(QUEUE, Arc::default()));
    let caps = Caps {
        max_context,
        prefill_chunk,
        max_sequences: MAX_SEQUENCES,
        max_batch_tokens: usize::MAX,
        max_batch_wait: Duration::ZERO,
        memory_budget: None,
    };
    let scheduler = Scheduler::new(
        model,
        Arc::clone(&tokenizer),
        Arc::clone(&control),
        Arc::clone(&queue),
        caps,
    )
    .with_drafter(drafter);
    let thread = thread::spawn(move || scheduler.run());
    let compiled = ChatTemplate::new(source).expect("a valid template");
    let engine = Engine::new(Parts {
        info: info(max_context),
        tokenizer,
        template: Template::Ready(Box::new(compiled)),
        sampling: Sampling::default(),
        speculation,
        lenient: false,
        ticket: None,
        room: Room {
            ledger: Ledger::process().clone(),
            policy: Policy::Max,
            model: "fake".to_owned(),
        },
        queue,
        control,
        thread,
    });
    (engine, steps)
}

/// What comes of a future, on this thread.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let task = Arc::new(Task(Wake::default()));
    let waker = Waker::from(Arc::clone(&task));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => task.0.wait(None),
        }
    }
}

/// A task that is woken, and the thread that waits for that.
struct Task(Wake);

impl std::task::Wake for Task {
    fn wake(self: Arc<Self>) {
        self.0.call();
    }
}

/// A model that continues any prompt of `prompt_len` tokens with `reply`, then ends.
pub(crate) fn says(prompt_len: usize, reply: &str) -> impl FnMut(&[TokenId]) -> Vec<f32> + use<> {
    let reply: Vec<TokenId> = reply.bytes().map(TokenId::from).chain([END]).collect();
    move |held| {
        let at = held.len().saturating_sub(prompt_len);
        let mut row = vec![0.0; VOCAB_SIZE];
        row[reply[at.min(reply.len() - 1)] as usize] = 50.0;
        row
    }
}

/// A model that answers each prompt, which ends in `a:` on a line of its own, with a text, and then
/// ends. Among texts that are about as likely the grammar has the choice.
pub(crate) fn answers(answer: impl Fn(&str) -> String) -> impl FnMut(&[TokenId]) -> Vec<f32> {
    move |held| {
        let bytes: Vec<u8> = held
            .iter()
            .filter_map(|id| u8::try_from(*id).ok())
            .collect();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let at = text.rfind("\na:").map_or(text.len(), |at| at + 3);
        let reply = answer(&text[..at]);
        let next = reply.as_bytes().get(text.len() - at);
        let mut row = vec![0.0; VOCAB_SIZE];
        row[next.map_or(END as usize, |byte| usize::from(*byte))] = 50.0;
        row
    }
}

/// A model whose logits depend on every token before, and which never ends.
pub(crate) fn chaotic(held: &[TokenId]) -> Vec<f32> {
    let hash = held.iter().fold(0xCBF2_9CE4_8422_2325_u64, |hash, &token| {
        (hash ^ u64::from(token)).wrapping_mul(0x100_0000_01B3)
    });
    (0..VOCAB_SIZE as u64)
        .map(|id| {
            if id == u64::from(END) {
                -100.0
            } else {
                // Letters are likely, so that texts are readable.
                let bias = if (97..123).contains(&id) { 20.0 } else { 0.0 };
                crate::rng::uniform(hash, id) as f32 * 6.0 + bias
            }
        })
        .collect()
}

/// A byte-level tokenizer without merges: a token per byte, and the end token.
fn byte_tokenizer() -> Tokenizer {
    // Byte-level BPE writes a byte that is not printable as the next free character from U+0100.
    let mut free = 0x100_u32;
    let mut tokens: Vec<String> = (0..=255_u32)
        .map(|byte| {
            let printable = matches!(byte, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF);
            let character = if printable {
                byte
            } else {
                free += 1;
                free - 1
            };
            char::from_u32(character).expect("a character").to_string()
        })
        .collect();
    tokens.push("<end>".to_owned());
    let mut types = vec![1_i32; 256];
    types.push(3);

    let mut writer = Writer::new();
    let mut set = |key: &str, value: tercel_formats::gguf::OwnedValue| {
        writer.set(key, value).expect("a valid entry");
    };
    set("tokenizer.ggml.model", "gpt2".into());
    set("tokenizer.ggml.pre", "default".into());
    set("tokenizer.ggml.tokens", tokens.into());
    set("tokenizer.ggml.token_type", types.into());
    set("tokenizer.ggml.merges", Vec::<String>::new().into());
    set("tokenizer.ggml.eos_token_id", END.into());
    set("tokenizer.ggml.add_bos_token", false.into());
    let mut file = Vec::new();
    writer.write_to(&mut file).expect("written");
    let gguf = Gguf::parse(&file).expect("a valid file");
    Tokenizer::from_gguf(gguf.metadata()).expect("a valid tokenizer")
}

fn info(max_context: usize) -> Info {
    let model = ModelSummary {
        name: None,
        architecture: "test".into(),
        parameters: 0,
        vocab_size: VOCAB_SIZE,
        trained_context: max_context,
        hidden_size: 0,
        n_layers: 0,
        n_heads: 0,
        n_kv_heads: 0,
        head_dim: 0,
        feed_forward: 0,
        sliding_window: None,
        n_experts: 0,
        left_out: Vec::new(),
    };
    Info {
        id: "test".into(),
        path: "test.gguf".into(),
        file_bytes: 0,
        fingerprint: "test".into(),
        model,
        max_context,
        max_sequences: MAX_SEQUENCES,
        has_template: true,
        backend: "test".into(),
        threads: 1,
        memory: MemoryUse::default(),
        load_seconds: 0.0,
        load_report: crate::lifecycle::LoadReport::default(),
        notes: Vec::new(),
    }
}
