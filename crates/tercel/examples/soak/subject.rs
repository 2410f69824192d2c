//! The models under test.

use tercel::{Engine, EngineBuilder, Request};

use crate::arguments::Chosen;
use crate::families::Family;
use crate::random::Random;

/// A model, and how to ask it something.
pub(crate) struct Subject {
    /// As reports name it.
    pub(crate) name: String,
    pub(crate) chosen: Chosen,
    /// Where it is one of the small checkpoints.
    family: Option<Family>,
}

impl Subject {
    /// Writes the files of a small checkpoint; what else is wrong shows when it is loaded.
    pub(crate) fn open(chosen: Chosen) -> Self {
        let (name, family) = match &chosen {
            Chosen::File(path) => {
                let name = path.file_stem().unwrap_or(path.as_os_str());
                (name.to_string_lossy().into_owned(), None)
            }
            Chosen::Family(name) => (name.clone(), Some(Family::open(name))),
        };
        Self {
            name,
            chosen,
            family,
        }
    }

    /// Whether a pass takes milliseconds rather than microseconds.
    pub(crate) fn is_large(&self) -> bool {
        self.family.is_none()
    }

    /// Where it lies.
    pub(crate) fn path(&self) -> String {
        match (&self.family, &self.chosen) {
            (Some(family), _) => family.path(),
            (None, Chosen::File(path)) => path.display().to_string(),
            (None, Chosen::Family(name)) => name.clone(),
        }
    }

    pub(crate) fn builder(&self) -> EngineBuilder {
        match &self.family {
            Some(family) => family.builder(),
            None => Engine::builder(self.path()).max_context(1024).offline(true),
        }
    }

    /// `n` requests, greedy and sampled, with beginnings of several lengths that some share and
    /// ends of their own. Some repeat themselves, so that guesses are right.
    pub(crate) fn requests(&self, n: usize, seed: u64) -> Vec<Request> {
        (0..n).map(|i| self.request(i, seed)).collect()
    }

    fn request(&self, i: usize, seed: u64) -> Request {
        let own = seed.wrapping_mul(1_000_003).wrapping_add(i as u64);
        let mut random = Random::new(own, 0);
        let shared = [0, 16, 33, 64, 100][i % 5];
        let (n, times) = (random.between(1, 20), 1 + i % 3);
        let request = match &self.family {
            Some(family) => {
                let mut tokens = family.tokens(seed, 100)[..shared].to_vec();
                tokens.extend(family.tokens(own, n).repeat(times));
                Request::tokens(tokens)
            }
            None => {
                let mut words = words(&mut Random::new(seed, 1), 100);
                words.truncate(shared);
                words.extend(self::words(&mut random, n).repeat(times));
                Request::prompt(words.join(" "))
            }
        };
        // A request in two is greedy, the others try every part of the sampler.
        let request = match i % 6 {
            1 => request.temperature(0.8),
            3 => request.temperature(1.2).top_k(40).top_p(0.95),
            5 => request.temperature(0.7).min_p(0.05).presence_penalty(0.5),
            2 => request.temperature(0.0).repetition_penalty(1.1),
            _ => request.temperature(0.0),
        };
        let request = request
            .seed(own)
            .max_new_tokens(8 + i % if self.is_large() { 9 } else { 33 });
        // Small checkpoints have no vocabulary to speak of.
        match i % 12 {
            2 if self.is_large() => request.json(),
            5 if self.is_large() => request.regex("([a-z]+ ){1,6}[a-z]+\\."),
            9 if self.is_large() => {
                request.grammar("start: \"Once upon a \" /[a-z]+/ (\" and \" /[a-z]+/)*")
            }
            _ => request.ignore_eos(!i.is_multiple_of(7)),
        }
    }
}

/// Words of a sort of story.
pub(crate) fn words(random: &mut Random, n: usize) -> Vec<&'static str> {
    const WORDS: [&str; 32] = [
        "the", "a", "quick", "old", "fox", "river", "stone", "and", "then", "saw", "ran", "over",
        "under", "house", "light", "dark", "said", "that", "1,", "2,", "3,", "children", "sea",
        "was", "is", "not", "very", "cold.", "Once", "upon", "time", "story",
    ];
    (0..n).map(|_| random.pick(&WORDS)).collect()
}
