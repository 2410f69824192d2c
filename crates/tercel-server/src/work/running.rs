//! A reply that is being made. Dropping it cancels the request and says so in the log.

use tercel::host::LeaseAsyncStream;
use tercel::{Event, TokenLogprob};

use super::ask::Ask;
use super::finished::Finished;
use super::on_a_thread;
use crate::app::Shared;
use crate::error::ApiError;
use crate::gate::Caller;
use crate::guard::{self, OutputFilter};
use crate::log::Watch;

/// A reply that is being made.
pub(crate) struct Running {
    model: String,
    stream: LeaseAsyncStream,
    /// There where the output is filtered.
    filter: Option<OutputFilter>,
    /// What the filter let through.
    text: String,
    /// Ends the request in the log and the metrics, whichever way it ends.
    watch: Watch,
    /// What is still to be given before the engine is asked again.
    pending: Option<Piece>,
    is_over: bool,
}

/// What a reply gives as it is made.
#[derive(Clone, Debug)]
pub(crate) enum Piece {
    /// More of the thought.
    Thinking(String),
    /// More of the answer.
    Text(String),
    /// More of a call of a tool.
    Call(CallPiece),
    /// Of the tokens of the piece that follows; only where asked for.
    Logprobs(Vec<TokenLogprob>),
    /// The end; nothing follows.
    Done(Box<Finished>),
}

/// More of a call of a tool.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CallPiece {
    /// Which call of the reply.
    pub(crate) index: usize,
    /// There where the call begins.
    pub(crate) begun: Option<Begun>,
    /// More of the arguments' JSON.
    pub(crate) arguments: String,
}

/// A call that begins.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Begun {
    pub(crate) id: String,
    pub(crate) name: String,
}

/// Checks a question, waits for its model and starts it.
///
/// # Errors
/// Everything that can be known before the first token: see [`ApiError`].
pub(crate) async fn begin(app: &Shared, caller: &Caller, ask: Ask) -> Result<Running, ApiError> {
    begin_choice(app, caller, ask, 0).await
}

async fn begin_choice(
    app: &Shared,
    caller: &Caller,
    ask: Ask,
    choice: usize,
) -> Result<Running, ApiError> {
    let model = app.models.find(ask.model.as_deref())?.name.clone();
    let mut watch = Watch::received(app, caller, &model, &ask, choice);
    match start(app, &model, ask, &mut watch).await {
        Ok((stream, filter)) => {
            watch.started(&stream);
            Ok(Running {
                model,
                stream,
                filter,
                text: String::new(),
                watch,
                pending: None,
                is_over: false,
            })
        }
        Err(error) => {
            watch.failed(&error);
            Err(error)
        }
    }
}

/// Starts a question several times (`n`), each with a seed of its own: the one that was given and
/// those after it.
///
/// # Errors
/// Those of [`begin`]; those that were started are cancelled then.
pub(crate) async fn begin_several(
    app: &Shared,
    caller: &Caller,
    ask: &Ask,
    count: usize,
) -> Result<Vec<Running>, ApiError> {
    let mut running = Vec::with_capacity(count);
    for index in 0..count {
        let mut ask = ask.clone();
        let seed = ask.sampling.seed;
        ask.sampling.seed = seed.map(|seed| seed.wrapping_add(index as u64));
        running.push(begin_choice(app, caller, ask, index).await?);
    }
    Ok(running)
}

async fn start(
    app: &Shared,
    model: &str,
    mut ask: Ask,
    watch: &mut Watch,
) -> Result<(LeaseAsyncStream, Option<OutputFilter>), ApiError> {
    if app.is_draining() {
        return Err(ApiError::from(tercel::host::HostError::Closed));
    }
    guard::check_input(&app.config.guard, &mut ask)?;
    watch.normalized(&ask);
    ask.check(&app.config.limits)?;
    let filter = OutputFilter::of(&app.config.guard);
    if filter.is_some() && ask.logprobs.is_some() {
        let message = "`logprobs` are not to be had where replies are filtered";
        return Err(ApiError::unsupported("logprobs", message));
    }
    if filter.is_some() && !ask.tools.list.is_empty() {
        let message = "`tools` are not to be had where replies are filtered: arguments are not";
        return Err(ApiError::unsupported("tools", message));
    }
    let lease = app.models.lease(model).await?;
    let request = ask.request(&app.config.limits);
    let stream = on_a_thread(move || Ok(lease.stream_async(request)?)).await?;
    Ok((stream, filter))
}

impl Running {
    /// The model that answers.
    pub(crate) fn model(&self) -> &str {
        &self.model
    }

    /// What makes it.
    pub(crate) fn engine(&self) -> &tercel::Engine {
        self.stream.lease().engine()
    }

    /// Tokens of the prompt.
    pub(crate) fn prompt_tokens(&self) -> usize {
        self.stream.prompt_tokens()
    }

    /// The next piece; `None` after [`Piece::Done`] or an error.
    pub(crate) async fn next(&mut self) -> Option<Result<Piece, ApiError>> {
        if let Some(piece) = self.pending.take() {
            self.is_over = true;
            return Some(Ok(piece));
        }
        while !self.is_over {
            let event = match self.stream.next_event().await? {
                Ok(event) => event,
                Err(error) => {
                    self.is_over = true;
                    let error = ApiError::from(error);
                    self.watch.failed(&error);
                    return Some(Err(error));
                }
            };
            match event {
                Event::Thinking { text, token_index } => {
                    self.watch.token(token_index);
                    // A thought may hold what an answer must not.
                    let text = match &self.filter {
                        Some(_) => continue,
                        None => text,
                    };
                    return Some(Ok(Piece::Thinking(text)));
                }
                Event::Delta { text, token_index } => {
                    self.watch.token(token_index);
                    let text = match &mut self.filter {
                        Some(filter) => filter.push(&text),
                        None => text,
                    };
                    if !text.is_empty() {
                        self.text.push_str(&text);
                        return Some(Ok(Piece::Text(text)));
                    }
                }
                Event::ToolCall {
                    index,
                    id,
                    name,
                    arguments,
                    token_index,
                } => {
                    self.watch.token(token_index);
                    let begun = id.zip(name).map(|(id, name)| Begun { id, name });
                    return Some(Ok(Piece::Call(CallPiece {
                        index,
                        begun,
                        arguments,
                    })));
                }
                Event::Logprobs { logprobs, .. } if self.filter.is_none() => {
                    return Some(Ok(Piece::Logprobs(logprobs)));
                }
                Event::Done(mut reply) => {
                    let (rest, guarded_by) = match self.filter.take() {
                        Some(filter) => {
                            reply.thinking = None;
                            reply.logprobs.clear();
                            filter.finish()
                        }
                        None => (String::new(), None),
                    };
                    self.text.push_str(&rest);
                    let finished = Finished {
                        model: self.model.clone(),
                        text: std::mem::take(&mut self.text),
                        reply,
                        guarded_by,
                    };
                    self.watch.completed(&self.stream, &finished);
                    let done = Piece::Done(Box::new(finished));
                    if rest.is_empty() {
                        self.is_over = true;
                        return Some(Ok(done));
                    }
                    self.pending = Some(done);
                    return Some(Ok(Piece::Text(rest)));
                }
                _ => {}
            }
        }
        None
    }

    /// Reads to the end.
    ///
    /// # Errors
    /// What ended the request.
    pub(crate) async fn finish(mut self) -> Result<Finished, ApiError> {
        while let Some(piece) = self.next().await {
            if let Piece::Done(finished) = piece? {
                return Ok(*finished);
            }
        }
        Err(ApiError::from(tercel::Error::EngineClosed))
    }
}

/// Reads several to their ends; they run side by side.
///
/// # Errors
/// The first that ended one of them; the others are cancelled.
pub(crate) async fn finish_all(running: Vec<Running>) -> Result<Vec<Finished>, ApiError> {
    let mut finished = Vec::with_capacity(running.len());
    for one in running {
        finished.push(one.finish().await?);
    }
    Ok(finished)
}
