//! What a repository of the Hub holds, and which of it makes up a model.

use serde::Deserialize;

use super::SourceError;
use super::choose;
use super::fetch::Expected;
use super::hub::LARGEST_FILE_BYTES;
use super::layout::{CONFIG, INDEX, SplitName, WEIGHTS, has_tokenizer, is_gguf, small_files};
use super::local::ModelKind;
use super::model_ref::check_hub_parts;
use super::plan::plain_file_name;

/// The files of a repository.
#[derive(Debug)]
pub(super) struct Listing {
    /// The commit that was listed, where the server tells it.
    pub(super) commit: Option<String>,
    pub(super) files: Vec<Listed>,
}

/// A file of a repository, with what is known of it.
#[derive(Clone, Debug)]
pub(super) struct Listed {
    pub(super) path: String,
    pub(super) is: Expected,
}

/// The files of a repository that are to be fetched.
#[derive(Clone, Debug)]
pub(super) struct Selection {
    pub(super) kind: ModelKind,
    pub(super) commit: Option<String>,
    pub(super) files: Vec<Wanted>,
    /// The weights that an index may name; empty where there is no index.
    pub(super) shards: Vec<Wanted>,
}

/// A file to be fetched.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    /// The path in the repository.
    pub(super) path: String,
    /// The name in the store.
    pub(super) name: String,
    pub(super) expected: Expected,
}

impl Listing {
    /// Reads the answer of the Hub. What is no plain relative path, or not what a hash or a size
    /// can be, counts as not there.
    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Answer {
            #[serde(default)]
            siblings: Vec<Sibling>,
            sha: Option<String>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Sibling {
            rfilename: String,
            size: Option<u64>,
            blob_id: Option<String>,
            lfs: Option<Lfs>,
        }
        #[derive(Deserialize)]
        struct Lfs {
            sha256: Option<String>,
        }

        let answer: Answer = serde_json::from_slice(body).ok()?;
        let hash = |text: Option<String>, length: usize| {
            let text = text?.to_lowercase();
            let good = text.len() == length && text.bytes().all(|byte| byte.is_ascii_hexdigit());
            good.then_some(text)
        };
        let files = answer.siblings.into_iter().filter_map(|sibling| {
            check_hub_parts("org/repo", None, Some(&sibling.rfilename)).ok()?;
            let is_large = sibling.lfs.is_some();
            Some(Listed {
                path: sibling.rfilename,
                is: Expected {
                    size_bytes: sibling.size.filter(|size| *size <= LARGEST_FILE_BYTES),
                    sha256: hash(sibling.lfs.and_then(|lfs| lfs.sha256), 64),
                    // For a large file git keeps a pointer, and the hash is that of the pointer.
                    git_sha1: hash(sibling.blob_id, 40).filter(|_| !is_large),
                },
            })
        });
        Some(Self {
            files: files.collect(),
            commit: hash(answer.sha, 40),
        })
    }

    fn has(&self, path: &str) -> bool {
        self.files.iter().any(|file| file.path == path)
    }

    fn wanted(&self, path: &str) -> Option<Wanted> {
        let listed = self.files.iter().find(|file| file.path == path)?;
        Some(Wanted {
            path: path.to_owned(),
            name: plain_file_name(path),
            expected: listed.is.clone(),
        })
    }
}

impl Selection {
    /// One file of which nothing is known but what is expected.
    pub(super) fn one(path: &str, name: String, expected: Expected) -> Self {
        Self {
            kind: ModelKind::SingleGguf,
            commit: None,
            files: vec![Wanted {
                path: path.to_owned(),
                name,
                expected,
            }],
            shards: Vec::new(),
        }
    }

    /// The model of a repository: the GGUF file that is wanted or suits best, with all its parts,
    /// or where there is none and no wish, the checkpoint.
    pub(super) fn of(
        repo: &str,
        listing: &Listing,
        wanted: Option<&str>,
    ) -> Result<Self, SourceError> {
        let none = |detail: String| SourceError::NoModelInRepository {
            repo: repo.to_owned(),
            detail,
        };
        let ggufs: Vec<String> = listing
            .files
            .iter()
            .map(|file| file.path.clone())
            .filter(|path| is_gguf(path))
            .collect();
        let chosen = match wanted {
            Some(file) if is_gguf(file) => Ok(file.to_owned()),
            _ => choose::among(&ggufs, wanted),
        };
        let has_none = ggufs.iter().all(|path| choose::is_companion(path));
        match chosen {
            Ok(file) => Self::gguf(listing, &file).map_err(none),
            Err(_) if wanted.is_none() && has_none && listing.has(CONFIG) => {
                Self::checkpoint(listing).map_err(none)
            }
            Err(_) if ggufs.is_empty() => Err(none(match wanted {
                Some(wanted) => format!("has no GGUF file, of which {wanted} could be one"),
                None => "has neither a GGUF file nor a config.json with safetensors".to_owned(),
            })),
            Err(detail) => Err(none(detail)),
        }
    }

    /// The file by which a GGUF model is named; a checkpoint is named by its repository.
    pub(super) fn file(&self) -> Option<&str> {
        match self.kind {
            ModelKind::Directory => None,
            _ => self.files.first().map(|file| file.path.as_str()),
        }
    }

    fn gguf(listing: &Listing, file: &str) -> Result<Self, String> {
        let split = SplitName::parse(file);
        let paths: Vec<String> = match &split {
            Some(split) => split.parts().collect(),
            None => vec![file.to_owned()],
        };
        let mut files = Vec::new();
        for path in paths {
            files.push(
                listing
                    .wanted(&path)
                    .ok_or_else(|| format!("has no {path}"))?,
            );
        }
        Ok(Self {
            kind: match split {
                Some(_) => ModelKind::SplitGguf,
                None => ModelKind::SingleGguf,
            },
            commit: listing.commit.clone(),
            files,
            shards: Vec::new(),
        })
    }

    fn checkpoint(listing: &Listing) -> Result<Self, String> {
        let has = |path: &str| listing.has(path);
        if !has_tokenizer(has) {
            return Err("has neither tokenizer.json nor tokenizer.model".to_owned());
        }
        let weights = match (has(INDEX), has(WEIGHTS)) {
            (true, _) => INDEX,
            (false, true) => WEIGHTS,
            (false, false) => {
                let others = ["pytorch_model.bin", "pytorch_model.bin.index.json"];
                return Err(if others.into_iter().any(has) {
                    "has weights only as PyTorch pickles, which are never loaded".to_owned()
                } else {
                    format!("has neither a GGUF file nor {WEIGHTS}")
                });
            }
        };
        let is_shard = |file: &&Listed| file.path.ends_with(".safetensors");
        let shards = listing.files.iter().filter(is_shard);
        let shards = shards.filter_map(|file| listing.wanted(&file.path));
        Ok(Self {
            kind: ModelKind::Directory,
            commit: listing.commit.clone(),
            files: small_files(has)
                .into_iter()
                .chain([weights])
                .filter_map(|path| listing.wanted(path))
                .collect(),
            shards: match weights {
                INDEX => shards.collect(),
                _ => Vec::new(),
            },
        })
    }
}
