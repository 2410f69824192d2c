//! Several chats at once, with `llama-server` over loopback.

use std::io::BufRead;
use std::net::SocketAddr;
use std::process::Command;
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::peers::RUN;
use crate::peers::child::{Running, peak_of};
use crate::peers::http::{free_address, request, start};
use crate::peers::load::{Load, Wire};
use crate::peers::metric::{CHATS, Metric};
use crate::peers::peer::{Reading, shown};
use crate::peers::stats;
use crate::peers::subject::Subject;

/// Starts the server, has a warm-up behind it, asks for all replies at once, and ends the server.
pub(super) fn chats(
    mut command: Command,
    subject: &Subject,
    threads: u32,
    prompt: u32,
    tokens: u32,
) -> Result<Reading> {
    let (server, address, shown) = started(&mut command, subject, threads, CHATS, prompt + tokens)?;
    ask(address, prompt, 8, CHATS)?;

    let started = Instant::now();
    let clients: Vec<_> = (0..CHATS)
        .map(|client| thread::spawn(move || ask(address, prompt, tokens, client)))
        .collect();
    let replies = clients.into_iter().map(|client| match client.join() {
        Ok(reply) => reply,
        Err(_) => bail!("a client gave up"),
    });
    let replies = replies.collect::<Result<Vec<Reply>>>()?;
    let seconds = started.elapsed().as_secs_f64();
    let generated: u64 = replies.iter().map(|reply| reply.tokens).sum();
    let wanted = u64::from(CHATS) * u64::from(tokens);
    if generated != wanted {
        bail!("llama-server generated {generated} tokens, not {wanted}");
    }
    let first = replies.iter().map(|reply| reply.first_seconds);
    // The 95th percentile of eight, by nearest rank, is the last.
    let last = stats::Spread::of(first).context("there are replies")?.max;
    Ok(Reading {
        values: vec![
            (Metric::Chats, generated as f64 / seconds),
            (Metric::ChatsFirstToken, last),
        ],
        peak_bytes: peak_of(server.0.id()),
        command: format!("{shown}, {CHATS} clients of {prompt} + {tokens} tokens each"),
    })
}

/// Starts the server, and asks it for replies for a while.
pub(super) fn serve(
    mut command: Command,
    subject: &Subject,
    threads: u32,
    load: Load,
) -> Result<Reading> {
    let tokens = load.prompt + load.tokens;
    let (server, address, shown) = started(&mut command, subject, threads, load.clients, tokens)?;
    let wire = Wire {
        path: "/completion",
        body: &body,
        tokens: &|event| {
            event["tokens_predicted"]
                .as_u64()
                .filter(|_| event["stop"] == true)
        },
        has_text: &|event| {
            event["content"]
                .as_str()
                .is_some_and(|text| !text.is_empty())
        },
    };
    Ok(Reading {
        values: load.run(address, &wire)?,
        peak_bytes: peak_of(server.0.id()),
        command: format!("{shown}, {load}"),
    })
}

/// A server with room for so many chats of so many tokens each, and how it was started.
fn started(
    command: &mut Command,
    subject: &Subject,
    threads: u32,
    chats: u32,
    tokens: u32,
) -> Result<(Running, SocketAddr, String)> {
    let address = free_address()?;
    let context = u64::from(chats) * u64::from(tokens + 64);
    command.arg("-m").arg(&subject.path);
    command.args(["-np", &chats.to_string(), "-c", &context.to_string()]);
    command.args(["-t", &threads.to_string(), "--host", "127.0.0.1"]);
    let shown = shown(command, subject);
    command.args(["--port", &address.port().to_string()]);
    let server = start(command, address, "/health")?;
    Ok((server, address, shown))
}

/// A request for so many tokens, whatever they are.
fn body(prompt: &[u32], tokens: u32) -> Value {
    json!({
        "prompt": prompt,
        "n_predict": tokens,
        "temperature": 0,
        "ignore_eos": true,
        "cache_prompt": false,
        "stream": true,
    })
}

/// What a client saw.
#[derive(Debug, PartialEq)]
struct Reply {
    first_seconds: f64,
    tokens: u64,
}

/// Asks for a reply of so many tokens to a prompt that no other client has.
fn ask(address: SocketAddr, prompt: u32, tokens: u32, client: u32) -> Result<Reply> {
    let prompt: Vec<u32> = (0..prompt)
        .map(|i| 100 + (client * 131 + i * 7) % 1000)
        .collect();
    let body = body(&prompt, tokens);
    let started = Instant::now();
    let answer = request(address, "POST", "/completion", &body.to_string(), RUN)?;
    read_reply(answer, || started.elapsed().as_secs_f64())
}

/// Reads the events of a reply. The lengths of chunks stand on lines of their own, as the server
/// sends one event in one chunk.
fn read_reply(mut answer: impl BufRead, now: impl Fn() -> f64) -> Result<Reply> {
    let mut line = String::new();
    answer
        .read_line(&mut line)
        .context("llama-server does not answer")?;
    if !line.contains(" 200 ") {
        bail!("llama-server answers `{}`", line.trim());
    }
    let mut first_seconds = None;
    loop {
        line.clear();
        let length = answer.read_line(&mut line);
        if length.context("llama-server does not go on")? == 0 {
            bail!("llama-server broke a reply off");
        }
        let Some(event) = line.strip_prefix("data: ") else {
            continue;
        };
        let event: Value = serde_json::from_str(event).context("an event is no JSON")?;
        let first_seconds = *first_seconds.get_or_insert_with(&now);
        if event["stop"] == true {
            let tokens = event["tokens_predicted"].as_u64();
            let tokens = tokens.context("llama-server does not count its tokens")?;
            return Ok(Reply {
                first_seconds,
                tokens,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

    #[test]
    fn the_first_event_and_the_count_are_read_from_a_reply() {
        let body = "1f\r\ndata: {\"content\":\" a\",\"stop\":false}\n\n\r\n\
                    20\r\ndata: {\"content\":\" b\",\"stop\":false}\n\n\r\n\
                    2f\r\ndata: {\"content\":\"\",\"stop\":true,\"tokens_predicted\":2}\n\n\r\n0\r\n";
        let clock = std::cell::Cell::new(0.0);
        let now = || {
            clock.set(clock.get() + 1.0);
            clock.get()
        };
        let reply = read_reply(format!("{HEAD}{body}").as_bytes(), now).unwrap();
        assert_eq!(
            reply,
            Reply {
                first_seconds: 1.0,
                tokens: 2
            }
        );
        for (answer, part) in [
            (String::new(), "``"),
            ("HTTP/1.1 503 Loading\r\n".to_owned(), "503 Loading"),
            (HEAD.to_owned(), "broke a reply off"),
            (format!("{HEAD}data: {{\n"), "no JSON"),
            (format!("{HEAD}data: {{\"stop\":true}}\n"), "count"),
        ] {
            let error = read_reply(answer.as_bytes(), || 0.0).unwrap_err();
            let error = format!("{error:#}");
            assert!(error.contains(part), "{error}");
        }
    }
}
