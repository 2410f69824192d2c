//! A repository as the Hub serves it: listed with sizes and hashes, large files by their SHA-256,
//! small ones by the hash under which git keeps them.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;

use serde_json::json;
use sha1::{Digest, Sha1};

use super::{Reply, Server, sha256};

/// The files of `org/repo`, and how its server misbehaves.
#[derive(Clone, Default)]
pub(crate) struct Repository {
    files: BTreeMap<String, Vec<u8>>,
    /// Sent in place of what is listed.
    forged: BTreeMap<String, Vec<u8>>,
    /// Sizes that are not the true ones.
    claims: BTreeMap<String, u64>,
    /// The first answer for this file ends after so many bytes, and the next is a refusal.
    cut: Option<(String, usize)>,
    /// Tells neither sizes nor hashes nor the commit.
    pub(crate) silent: bool,
}

impl Repository {
    pub(crate) const COMMIT: &str = "00112233445566778899aabbccddeeff00112233";

    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn add(&mut self, path: &str, bytes: Vec<u8>) {
        self.files.insert(path.to_owned(), bytes);
    }

    pub(crate) fn remove(&mut self, path: &str) {
        self.files.remove(path);
    }

    /// Serves other bytes of the same length.
    pub(crate) fn forge(&mut self, path: &str) {
        let mut bytes = self.bytes(path);
        bytes[0] ^= 1;
        self.forged.insert(path.to_owned(), bytes);
    }

    pub(crate) fn claim(&mut self, path: &str, size: u64) {
        self.claims.insert(path.to_owned(), size);
    }

    pub(crate) fn cut(mut self, path: &str, bytes: usize) -> Self {
        self.cut = Some((path.to_owned(), bytes));
        self
    }

    pub(crate) fn bytes(&self, path: &str) -> Vec<u8> {
        self.files[path].clone()
    }

    /// Whether the Hub keeps the file outside git.
    pub(crate) fn is_large(path: &str) -> bool {
        let endings = [".safetensors", ".gguf", ".bin", "tokenizer.json", ".onnx"];
        endings.iter().any(|ending| path.ends_with(ending))
    }

    /// The answer to a question for the files.
    pub(crate) fn listing(&self) -> String {
        let siblings: Vec<_> = self
            .files
            .iter()
            .map(|(path, bytes)| {
                let size = self.claims.get(path).copied().unwrap_or(bytes.len() as u64);
                match (self.silent, Self::is_large(path)) {
                    (true, _) => json!({ "rfilename": path }),
                    (false, true) => json!({
                        "rfilename": path, "size": size, "blobId": git_sha1(b"pointer"),
                        "lfs": { "sha256": sha256(bytes), "size": size, "pointerSize": 134 },
                    }),
                    (false, false) => json!({
                        "rfilename": path, "size": size, "blobId": git_sha1(bytes),
                    }),
                }
            })
            .collect();
        match self.silent {
            true => json!({ "siblings": siblings }).to_string(),
            false => json!({ "siblings": siblings, "sha": Self::COMMIT }).to_string(),
        }
    }

    pub(crate) fn serve(self) -> Server {
        let troubles = AtomicUsize::new(0);
        Server::start(move |request, _| {
            if request.path.starts_with("/api/models/org/repo/") {
                return Reply::new(200, self.listing());
            }
            let path = request.path.strip_prefix("/org/repo/resolve/");
            let path = path.and_then(|path| path.split_once('/'));
            let Some((path, listed)) =
                path.and_then(|(_, path)| Some((path, self.files.get(path)?)))
            else {
                return Reply::new(404, "").with("X-Error-Code", "RepoNotFound");
            };
            let bytes = self.forged.get(path).unwrap_or(listed);
            let etag = match (self.silent, Self::is_large(path)) {
                (true, _) => "tag".to_owned(),
                (false, true) => sha256(listed),
                (false, false) => git_sha1(listed),
            };
            let reply = Reply::file(request, bytes, &etag);
            let Some((cut, at)) = self.cut.as_ref().filter(|(cut, _)| cut == path) else {
                return reply;
            };
            match (troubles.load(SeqCst), request.method.as_str()) {
                (0, "GET") => {
                    troubles.store(1, SeqCst);
                    reply.cut_at(*at)
                }
                (1, _) => {
                    troubles.store(2, SeqCst);
                    Reply::new(503, format!("{cut} is not to be had now"))
                }
                _ => reply,
            }
        })
    }
}

fn git_sha1(bytes: &[u8]) -> String {
    Sha1::new()
        .chain_update(format!("blob {}\0", bytes.len()))
        .chain_update(bytes)
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
