//! What a session file keeps, and what it is refused for.

use std::cell::RefCell;

use super::*;
use crate::TokenId;
use crate::testing::{chaotic, engine, engine_with_template};

/// A chat with two turns, an engine like its own, and a place for files.
fn talk() -> (Chat, Engine, tempfile::TempDir) {
    let (here, _) = engine(400, chaotic);
    let (there, _) = engine(400, chaotic);
    let mut chat = here
        .chat()
        .system("Be brief.")
        .max_new_tokens(6)
        .temperature(0.5)
        .stop("zz")
        .seed(3);
    chat.ask("one").expect("a reply");
    chat.ask("two").expect("a reply");
    (chat, there, tempfile::tempdir().expect("a directory"))
}

fn kind(result: Result<Chat, Error>) -> &'static str {
    result.expect_err("refused").kind()
}

#[test]
fn a_conversation_goes_on_as_if_it_had_not_been_away() {
    let (mut chat, there, place) = talk();
    let path = place.path().join("talk.session");
    let saved = chat.save(&path).expect("saved");
    assert_eq!((saved.messages, saved.state_tokens), (5, 0));
    assert_eq!(saved.bytes, std::fs::metadata(&path).expect("a file").len());
    let mut resumed = there.resume(&path).expect("resumed");
    assert_eq!(resumed.history(), chat.history());
    assert_eq!(resumed.current_sampling(), chat.current_sampling());
    let next = chat.ask("three").expect("a reply");
    assert_eq!(resumed.ask("three").expect("a reply").tokens, next.tokens);

    // Again, in the place of the first.
    resumed.save_transcript(&path).expect("saved");
    assert_eq!(there.resume(&path).expect("resumed").history().len(), 7);
    let files = std::fs::read_dir(place.path()).expect("readable").count();
    assert_eq!(files, 1, "nothing is left beside it");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(&path)
            .expect("a file")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        // A link is replaced, never followed.
        let link = place.path().join("link");
        std::os::unix::fs::symlink(&path, &link).expect("linked");
        let before = std::fs::read(&path).expect("readable");
        there.chat().save(&link).expect("saved");
        assert_eq!(std::fs::read(&path).expect("readable"), before);
        assert!(std::fs::symlink_metadata(&link).expect("there").is_file());
    }
}

#[test]
fn another_model_template_or_build_is_refused_by_name() {
    let (chat, there, place) = talk();
    let path = place.path().join("talk.session");
    let own = Header::of(&there, chat.current_sampling());
    let changed = |change: fn(&mut Header)| {
        let mut header = own.clone();
        change(&mut header);
        header
    };
    for (header, part) in [
        (
            changed(|it| it.fingerprint = "other".into()),
            "is of another model: test, loaded is test",
        ),
        (changed(|it| it.template = None), "another chat template"),
        (
            changed(|it| it.build = "0.0.9".into()),
            "was written by build 0.0.9, this is 0.",
        ),
    ] {
        write_file(&path, &header, chat.history(), None).expect("written");
        let error = there.resume(&path).expect_err("refused");
        assert_eq!(error.kind(), "session_mismatch");
        assert!(error.to_string().contains(part), "{error}");
        assert!(
            error
                .hint()
                .expect("a hint")
                .contains("--session-transcript")
        );
        let transcript = there.resume_transcript(&path).expect("texts alone");
        assert_eq!(transcript.history(), chat.history());
    }
    chat.save(&path).expect("saved");
    let source = "{% for m in messages %}{{ m.content }}{% endfor %}";
    let (other, _) = engine_with_template(source, 400, 4, chaotic);
    let error = other.resume(&path).expect_err("refused");
    assert!(
        error.to_string().contains("another chat template"),
        "{error}"
    );
}

#[test]
fn what_is_no_session_is_told_apart_from_what_is_damaged() {
    let (_, there, place) = talk();
    let path = place.path().join("talk.session");
    assert_eq!(kind(there.resume(&path)), "session_not_found");
    assert_eq!(kind(there.resume(place.path())), "session_invalid");
    for (bytes, part) in [
        (&b""[..], "is no session"),
        (b"GGUF and more", "is no session"),
        (b"TRCLCHAT", "is cut off"),
        (b"TRCLCHAT\x02\0\0\0", "has format 2, this build reads 1"),
        (b"TRCLCHAT\x01\0\0\0", "is cut off"),
    ] {
        std::fs::write(&path, bytes).expect("written");
        for error in [there.resume(&path), there.resume_transcript(&path)] {
            let error = error.expect_err("refused");
            assert_eq!(error.kind(), "session_invalid");
            assert!(error.to_string().contains(part), "{error}");
        }
    }
    let chat = there.chat();
    let error = chat
        .save(place.path().join("no/such/place"))
        .expect_err("no place");
    assert_eq!(error.kind(), "session_unwritable");
    assert!(chat.save("/").is_err());
}

#[test]
fn every_truncation_and_every_changed_bit_is_found() {
    let (chat, there, place) = talk();
    let path = place.path().join("talk.session");
    let header = Header::of(&there, chat.current_sampling());
    let state = pack(&[1, 2, 3], b"state");
    write_file(&path, &header, chat.history(), Some(&state)).expect("written");
    let whole = std::fs::read(&path).expect("readable");
    there.resume(&path).expect("it is whole");
    // Without its last section it is a session without a state.
    let without_state = whole.len() - state.len() - 44;
    for length in 0..whole.len() {
        std::fs::write(&path, &whole[..length]).expect("written");
        if length == without_state {
            there.resume(&path).expect("whole without the state");
        } else {
            assert_eq!(kind(there.resume(&path)), "session_invalid", "{length}");
        }
    }
    for at in 0..whole.len() {
        for bit in [0, 3, 7] {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << bit;
            std::fs::write(&path, &bytes).expect("written");
            assert_eq!(kind(there.resume(&path)), "session_invalid", "{at} {bit}");
        }
    }
    let longer = [whole.as_slice(), b"x"].concat();
    std::fs::write(&path, longer).expect("written");
    let error = there.resume(&path).expect_err("something follows");
    assert!(
        error.to_string().contains("1 bytes follow its end"),
        "{error}"
    );
}

#[test]
fn a_claimed_length_is_compared_with_what_is_there() {
    let (_, there, place) = talk();
    let path = place.path().join("talk.session");
    for length in [u64::MAX, 1 << 62, (64 << 10) + 1, 1 << 40] {
        let mut bytes = b"TRCLCHAT\x01\0\0\0HEAD".to_vec();
        bytes.extend(length.to_le_bytes());
        bytes.extend([0; 32]);
        std::fs::write(&path, &bytes).expect("written");
        let file = std::fs::File::options()
            .write(true)
            .open(&path)
            .expect("opened");
        // A hole takes no space: the file is as long as it claims, up to what a disk may have.
        file.set_len(length.min(1 << 41)).expect("grown");
        let error = there.resume(&path).expect_err("too long");
        assert!(
            error
                .to_string()
                .contains(&format!("HEAD claims {length} bytes")),
            "{error}"
        );
    }
}

/// An engine's state that is nothing but its tokens.
#[derive(Default)]
struct Kept(RefCell<Vec<(Vec<TokenId>, Vec<u8>)>>);

impl KeepsState for Kept {
    fn export(&self, tokens: &[TokenId]) -> Option<Vec<u8>> {
        Some(tokens.iter().map(|id| id.to_le_bytes()[0]).collect())
    }

    fn import(&self, tokens: &[TokenId], state: &[u8]) -> Result<usize, Error> {
        self.0.borrow_mut().push((tokens.to_vec(), state.to_vec()));
        Ok(tokens.len())
    }
}

#[test]
fn a_state_comes_back_with_its_tokens_unless_the_texts_are_taken_alone() {
    let (chat, there, place) = talk();
    let path = place.path().join("talk.session");
    let kept = Kept::default();
    let saved = chat.save_with(&path, Some(&kept)).expect("saved");
    // The conversation as the template has it; this one ends with the start of a reply always.
    let text = chat
        .engine
        .prompter()
        .history(chat.history())
        .expect("rendered");
    assert_eq!(saved.state_tokens, text.len());
    there.resume_with(&path, &kept).expect("resumed");
    let taken = kept.0.take();
    let bytes: Vec<u8> = text.iter().map(|id| id.to_le_bytes()[0]).collect();
    assert_eq!(taken, [(text, bytes)]);
    there.resume_transcript(&path).expect("resumed");
    assert!(kept.0.take().is_empty());

    let header = Header::of(&there, chat.current_sampling());
    for (state, part) in [
        (vec![], "state is cut off"),
        (vec![255, 255, 255, 255, 0], "state is cut off"),
        (pack(&[4, 257], b""), "token 257, the model has 257"),
        (vec![0; (1 << 20) + 1], "STAT claims 1048577 bytes"),
    ] {
        write_file(&path, &header, chat.history(), Some(&state)).expect("written");
        let error = there.resume_with(&path, &kept).expect_err("refused");
        assert_eq!(error.kind(), "session_invalid");
        assert!(error.to_string().contains(part), "{error}");
        assert!(kept.0.take().is_empty());
        there.resume_transcript(&path).expect("the texts are whole");
    }
}

#[test]
fn whatever_stands_in_valid_sections_is_json_of_the_right_form() {
    let (chat, there, place) = talk();
    let path = place.path().join("talk.session");
    let header = Header::of(&there, chat.current_sampling());
    let deep = serde_json::from_str(&("[".repeat(100) + &"]".repeat(100))).expect("JSON");
    let messages = [Message::user("hi").with("deep", deep)];
    write_file(&path, &header, &messages, None).expect("written");
    assert_eq!(there.resume(&path).expect("resumed").history(), messages);
    // A value out of range is found by the request that it is for.
    let mut wrong = header;
    wrong.sampling.top_p = Some(7.0);
    write_file(&path, &wrong, &messages, None).expect("written");
    let mut chat = there.resume(&path).expect("resumed");
    assert_eq!(
        chat.ask("x").expect_err("out of range").kind(),
        "invalid_parameter"
    );
}
