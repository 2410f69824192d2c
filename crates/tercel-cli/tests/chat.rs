//! The chat, in a terminal of its own: a pseudo-terminal that the test types into.
#![cfg(unix)]
#![expect(clippy::panic, reason = "helpers of tests fail by panicking")]

mod common;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use common::Place;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

/// A running chat and its screen.
struct Terminal {
    child: Child,
    keyboard: File,
    output: Receiver<Vec<u8>>,
    screen: String,
}

impl Terminal {
    fn open(place: &Place, args: &[&str]) -> Self {
        let keyboard = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&keyboard).expect("granted");
        unlockpt(&keyboard).expect("unlocked");
        let name = ptsname(&keyboard, Vec::new()).expect("a name");
        let name = name.into_string().expect("UTF-8");
        let side = File::options()
            .read(true)
            .write(true)
            .open(name)
            .expect("its other side");
        let side = || Stdio::from(side.try_clone().expect("a copy"));
        let child = Command::new(assert_cmd::cargo::cargo_bin!("tercel"))
            .args(args)
            .envs(place.environment())
            .envs([("TERM", "xterm"), ("NO_COLOR", "1")])
            .stdin(side())
            .stdout(side())
            .stderr(side())
            .spawn()
            .expect("it starts");
        let keyboard = File::from(keyboard);
        let mut reader = keyboard.try_clone().expect("a copy");
        let (sender, output) = channel();
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            // Reading from a terminal without another side is an error: the end.
            while let Ok(count @ 1..) = reader.read(&mut bytes) {
                if sender.send(bytes[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
        Self {
            child,
            keyboard,
            output,
            screen: String::new(),
        }
    }

    fn type_in(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).expect("typed");
    }

    /// Waits until `text` is on the screen, and forgets the screen up to its end.
    fn see(&mut self, text: &str) -> String {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(at) = self.screen.find(text) {
                let rest = self.screen.split_off(at + text.len());
                return std::mem::replace(&mut self.screen, rest);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(bytes) = self.output.recv_timeout(left) else {
                panic!("no `{text}` on the screen: {:?}", self.screen);
            };
            self.screen.push_str(&String::from_utf8_lossy(&bytes));
        }
    }

    /// Types a line at the prompt and waits for what it leads to.
    fn say(&mut self, line: &str, answer: &str) -> String {
        self.see("> ");
        self.type_in(&format!("{line}\r"));
        self.see(answer)
    }

    fn end(mut self) -> ExitStatus {
        self.child.wait().expect("it ends")
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // A chat that has ended cannot be killed.
        let _ = self.child.kill();
    }
}

/// The options of a chat with short replies.
const SHORT: [&str; 5] = ["--ignore-eos", "--max-new-tokens", "5", "--seed", "7"];

#[test]
fn a_chat_obeys_commands_and_remembers() {
    let place = Place::new();
    let model = place.model(&[]);
    let mut chat = Terminal::open(&place, &[&["run", &model], &SHORT[..]].concat());
    chat.see("160 tokens of context");
    chat.say("/help", "/save FILE");
    chat.say("/nonsense", "no command /nonsense");
    chat.say("/stats", "(no reply yet)");
    chat.say("/system Be brief.", "hold from the next message on");
    chat.say("hello", "\n");
    chat.say("/stats", "| max_new_tokens | cpu-");
    chat.see("| seed 7");
    chat.say("and", "\n");
    chat.say("/stats", " cached) + 5 generated tokens");
    chat.say("/set temperature 3", "`temperature` is 3, must be 0 to 2");
    chat.say("/set temperature 0.5", "temperature  0.5");
    chat.say("/set", "temperature          0.5");
    chat.say("/system", "Be brief.");
    let file = place.text("talk.json");
    chat.say(&format!("/save {file}"), "(saved 5 messages to ");
    chat.say(&format!("/save {file}"), "exists already");
    chat.say("/reset", "starts afresh");
    chat.say("\"\"\"", "");
    chat.type_in("two\rlines\"\"\"\r");
    chat.say("/stats", "45 prompt");
    chat.see("> ");
    chat.type_in("/quit\r");
    assert!(chat.end().success());

    let saved: serde_json::Value =
        serde_json::from_slice(&fs::read(file).expect("written")).expect("JSON");
    let said = |at: usize| {
        saved["messages"][at]["content"]
            .as_str()
            .expect("text")
            .to_owned()
    };
    assert_eq!([said(0), said(1), said(3)], ["Be brief.", "hello", "and"]);
    let history = fs::read_to_string(place.home().join("history")).expect("a history");
    assert!(
        history.contains("hello") && history.contains("/set temperature 0.5"),
        "{history}"
    );
}

#[test]
fn turns_are_taken_back_and_said_anew_and_kept_in_a_session() {
    let place = Place::new();
    let model = place.model(&[]);
    let file = place.text("talk.session");
    let args = [&["run", &model, "--session", &file], &SHORT[..]].concat();
    let mut chat = Terminal::open(&place, &args);
    chat.say("/undo", "(there is no more than 0 messages of yours)");
    chat.say("/edit bye", "(there is no message yet)");
    chat.say("/edit", "/edit needs the new text");
    chat.say("hello", "\n");
    chat.say("/retry", "\n");
    chat.say("/stats", "23 prompt");
    chat.say("/edit good bye", "\n");
    chat.say("/stats", "26 prompt");
    chat.say("more", "\n");
    chat.say("/undo", "(taken back; 1 message of yours left)");
    chat.see("> ");
    chat.type_in("/quit\r");
    assert!(chat.end().success());

    let mut chat = Terminal::open(&place, &args);
    chat.see("(goes on after 1 turn)");
    let saved = place.text("talk.json");
    chat.say(&format!("/save {saved}"), "(saved 2 messages to ");
    let saved: serde_json::Value =
        serde_json::from_slice(&fs::read(saved).expect("written")).expect("JSON");
    assert_eq!(saved["messages"][0]["content"], "good bye");
}

#[test]
fn a_thought_is_shown_apart_and_can_be_turned_off() {
    let place = Place::new();
    let model = place.model(&[("tokenizer.chat_template", common::THINKS.into())]);
    let options = ["--max-new-tokens", "30", "--max-thinking-tokens", "4"];
    let args = [
        &["run", &model, "--ignore-eos", "--seed", "7"],
        &options[..],
    ]
    .concat();
    let mut chat = Terminal::open(&place, &args);
    chat.say("hello", "thinking: ");
    chat.say("/stats", " + 30 generated tokens (13 thinking)");
    chat.say("/set thinking off", "thinking  off");
    let reply = chat.say("again", "> ");
    assert!(!reply.contains("thinking: "), "{reply:?}");
    chat.type_in("/stats\r");
    chat.see(" + 30 generated tokens | ttft");
    chat.say("/set max_thinking_tokens default", "no limit");
    let file = place.text("talk.json");
    chat.say(&format!("/save {file}"), "(saved 4 messages to ");
    let saved: serde_json::Value =
        serde_json::from_slice(&fs::read(file).expect("written")).expect("JSON");
    assert!(saved["messages"][1]["reasoning_content"].is_string());
    assert!(saved["messages"][3]["reasoning_content"].is_null());
}

#[test]
fn ctrl_c_ends_a_reply_and_not_the_chat() {
    let place = Place::new();
    let model = place.model(&[("llama.context_length", 2_000_000_u32.into())]);
    let endless = [
        "--ignore-eos",
        "--max-new-tokens",
        "1000000",
        "--max-context",
        "1000000",
        "--seed",
        "7",
    ];
    let mut chat = Terminal::open(&place, &[&["run", &model], &endless[..]].concat());
    chat.say("go on", "\n");
    // The reply goes on for ever; wait until there is some of it.
    while chat.screen.len() < 200 {
        let bytes = chat
            .output
            .recv_timeout(Duration::from_secs(60))
            .expect("a reply");
        chat.screen.push_str(&String::from_utf8_lossy(&bytes));
    }
    let kill = Command::new("kill")
        .args(["-INT", &chat.child.id().to_string()])
        .status();
    assert!(kill.expect("kill runs").success());
    let reply = chat.see("(interrupted) ");
    // What drives a terminal is dropped from what a model says, and this one says anything.
    let escapes = reply
        .chars()
        .filter(|&c| c.is_control() && !"\r\n\t".contains(c))
        .count();
    assert_eq!(escapes, 0, "{reply:?}");
    chat.see("| cancelled |");
    chat.say("/set max_new_tokens 3", "max_new_tokens  3");
    chat.say("again", "\n");
    chat.say("/stats", " + 3 generated tokens");
    // At the prompt, Ctrl-C gives the line up, and twice in a row it is the end.
    chat.see("> ");
    chat.type_in("half a line\x03");
    chat.see("Ctrl-C again or Ctrl-D leaves");
    chat.see("> ");
    chat.type_in("\x03");
    assert!(chat.end().success());
}

#[test]
fn a_chat_needs_a_template_and_ends_with_ctrl_d() {
    let place = Place::new();
    let base = place.base_model();
    let mut refused = Terminal::open(&place, &["run", &base]);
    refused.see("error: the model has no chat template");
    refused.see("hint: ");
    assert_eq!(refused.end().code(), Some(1));

    let template = place.write("t.jinja", common::TEMPLATE);
    let args = [&["run", &base, "--template", &template], &SHORT[..]].concat();
    let mut chat = Terminal::open(&place, &args);
    chat.say("hello", "\n");
    chat.see("> ");
    chat.type_in("\x04");
    assert!(chat.end().success());
}
