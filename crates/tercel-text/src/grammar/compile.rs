//! Grammars for one vocabulary.

use std::sync::Arc;
use std::thread;

use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::InferenceCapabilities;
use llguidance::{Matcher, ParserFactory};

use super::constraint::Constraint;
use super::limits::{MAX_BRACKETS, MAX_BYTES};
use super::{Grammar, GrammarError, ToolGrammar, gbnf, schema, vocabulary};
use crate::tokenizer::Tokenizer;

/// The stack of the thread that compiles: what is not used of it takes no memory.
const STACK_BYTES: usize = 256 << 20;

/// Makes constraints of grammars, for one vocabulary. To build one takes the time and the memory of
/// a tree over the whole vocabulary: some tens of milliseconds and some MB.
pub struct Grammars {
    factory: ParserFactory,
    tokenizer: Arc<Tokenizer>,
}

impl Grammars {
    /// Bytes that [`Grammars::new`] takes at most while it works, for this vocabulary; nine tenths
    /// of it remain.
    pub fn bytes(tokenizer: &Tokenizer) -> u64 {
        vocabulary::bytes(tokenizer)
    }

    /// # Errors
    /// [`GrammarError::NoEnd`].
    pub fn new(tokenizer: Arc<Tokenizer>) -> Result<Self, GrammarError> {
        let vocabulary = vocabulary::vocabulary(Arc::clone(&tokenizer))?;
        let capabilities = InferenceCapabilities {
            ff_tokens: vocabulary.tokenize_is_canonical(),
            ..Default::default()
        };
        // Parts of a JSON string whose tokens are known before the text is.
        let slices = llguidance::earley::SlicedBiasComputer::general_slices();
        let factory = ParserFactory::new(&vocabulary, capabilities, &slices);
        let mut factory = factory.map_err(|error| GrammarError::Stuck {
            problem: super::one_line(&error.to_string()),
        })?;
        factory.quiet();
        let limits = factory.limits_mut();
        limits.verbose_errors = false;
        // A mask takes some milliseconds at most, a constraint some ten MB.
        limits.step_lexer_fuel = 100_000;
        limits.max_lexer_states = 50_000;
        limits.max_grammar_size = 200_000;
        Ok(Self { factory, tokenizer })
    }

    /// Compiles a grammar, and stands at the beginning of a text.
    ///
    /// # Errors
    /// [`GrammarError::Invalid`] and [`GrammarError::TooLarge`].
    pub fn compile(&self, grammar: &Grammar) -> Result<Constraint, GrammarError> {
        let invalid = |problem: String| grammar.invalid(problem);
        self.compile_source(source(grammar)?, &invalid)
    }

    /// Compiles the grammar of a reply that may call tools.
    ///
    /// # Errors
    /// [`GrammarError::Invalid`] and [`GrammarError::TooLarge`], which name the tool.
    pub fn compile_tools(&self, tools: &ToolGrammar<'_>) -> Result<Constraint, GrammarError> {
        let compiled = self.compile_source(tools.source(&self.tokenizer)?, &|problem| {
            GrammarError::Invalid {
                kind: "tools",
                problem: super::one_line(&problem),
            }
        });
        compiled.map_err(|error| tools.blame(error, |grammar| self.compile(grammar).map(drop)))
    }

    fn compile_source(
        &self,
        source: TopLevelGrammar,
        invalid: &(impl Fn(String) -> GrammarError + Sync),
    ) -> Result<Constraint, GrammarError> {
        // Rules that name each other in a row take the compiler as deep as they are many; and it
        // asserts here and there what a grammar can break.
        let compiled = thread::scope(|scope| {
            let thread = thread::Builder::new()
                .name("tercel-grammar".to_owned())
                .stack_size(STACK_BYTES)
                .spawn_scoped(scope, || self.factory.create_parser(source));
            thread.map(thread::ScopedJoinHandle::join)
        });
        let parser = compiled
            .map_err(|error| invalid(format!("there is no thread to compile it: {error}")))?
            .map_err(|_| invalid("it breaks the compiler".to_owned()))?
            .map_err(|error| invalid(format!("{error:#}")))?;
        let matcher = Matcher::new(Ok(parser));
        match matcher.get_error() {
            Some(problem) => Err(invalid(problem)),
            None => Constraint::new(matcher).map_err(invalid),
        }
    }
}

pub(super) fn source(grammar: &Grammar) -> Result<TopLevelGrammar, GrammarError> {
    if let Grammar::Regex(text) | Grammar::Lark(text) | Grammar::Gbnf(text) = grammar
        && text.len() > MAX_BYTES
    {
        return Err(GrammarError::TooLarge {
            kind: grammar.kind(),
            problem: format!("it is over {} KiB", MAX_BYTES >> 10),
        });
    }
    if let Grammar::Lark(text) = grammar
        && brackets(text) > MAX_BRACKETS
    {
        return Err(GrammarError::TooLarge {
            kind: grammar.kind(),
            problem: format!("brackets nest deeper than {MAX_BRACKETS} levels"),
        });
    }
    Ok(match grammar {
        Grammar::Json => {
            TopLevelGrammar::from_json_schema(schema::prepare(grammar, &schema::any_object())?)
        }
        Grammar::JsonSchema(value) => {
            TopLevelGrammar::from_json_schema(schema::prepare(grammar, value)?)
        }
        Grammar::Regex(pattern) => TopLevelGrammar::from_regex(pattern),
        Grammar::Lark(text) => TopLevelGrammar::from_lark(text.clone()),
        Grammar::Gbnf(text) => {
            let lark = gbnf::to_lark(text).map_err(|error| grammar.invalid(error))?;
            TopLevelGrammar::from_lark(lark)
        }
    })
}

/// How deep brackets nest, those in texts included: the parser goes down as deep.
fn brackets(text: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    for byte in text.bytes() {
        match byte {
            b'(' | b'{' | b'[' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b')' | b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

impl std::fmt::Debug for Grammars {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Grammars").finish_non_exhaustive()
    }
}
