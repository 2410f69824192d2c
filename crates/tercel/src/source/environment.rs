//! What the process's environment says about sources and stores, read once.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::SourceError;

/// The settings that sources and stores take from the environment.
///
/// Read once by [`Environment::from_process`]; a test builds its own and changes no variable.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Environment {
    /// `TERCEL_HOME`, else the platform's cache directory and `tercel`. Unset without a home.
    pub store: Option<PathBuf>,
    /// `HF_ENDPOINT`, without a slash at its end.
    pub hub_endpoint: String,
    /// `HF_TOKEN`, or the file named by `HF_TOKEN_PATH`, or `HF_HOME/token`.
    pub hub_token: Option<Token>,
    /// `HF_HUB_CACHE`, or `HF_HOME/hub`: a cache of the Hub's own tools, only read here.
    pub hub_cache: Option<PathBuf>,
    /// `TERCEL_OFFLINE` or `HF_HUB_OFFLINE`: never use the network.
    pub offline: bool,
    /// The commands that may be pip, in the order tried; each is a program and its first arguments.
    pub pip: Vec<Vec<OsString>>,
    /// Variables set for pip on top of those that it inherits.
    pub pip_variables: Vec<(OsString, OsString)>,
    /// How long to wait for what.
    pub timeouts: Timeouts,
}

impl Environment {
    /// Reads the variables of this process.
    pub fn from_process() -> Self {
        Self::from_lookup(|name| std::env::var_os(name))
    }

    /// Reads the variables that `lookup` gives. An empty value counts as unset.
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<OsString>) -> Self {
        let value = |name: &str| lookup(name).filter(|value| !value.is_empty());
        let text = |name: &str| value(name).and_then(|value| value.into_string().ok());
        let path = |name: &str| value(name).map(PathBuf::from);

        let home = path("HOME").or_else(|| path("USERPROFILE"));
        // The XDG specification says to ignore a relative path.
        let xdg_cache = path("XDG_CACHE_HOME").filter(|path| path.is_absolute());
        let dot_cache = home.as_ref().map(|home| home.join(".cache"));
        let platform_cache = if cfg!(windows) {
            path("LOCALAPPDATA")
        } else if cfg!(target_os = "macos") {
            home.as_ref().map(|home| home.join("Library/Caches"))
        } else {
            xdg_cache.clone().or_else(|| dot_cache.clone())
        };
        let hub_home = path("HF_HOME").or_else(|| {
            xdg_cache
                .or(dot_cache)
                .map(|cache| cache.join("huggingface"))
        });
        let token_file =
            path("HF_TOKEN_PATH").or_else(|| hub_home.as_ref().map(|home| home.join("token")));

        Self {
            store: path("TERCEL_HOME").or_else(|| platform_cache.map(|dir| dir.join("tercel"))),
            hub_endpoint: text("HF_ENDPOINT")
                .unwrap_or_else(|| "https://huggingface.co".to_owned())
                .trim_end_matches('/')
                .to_owned(),
            hub_token: text("HF_TOKEN")
                .or_else(|| text("HUGGING_FACE_HUB_TOKEN"))
                .or_else(|| token_file.and_then(|file| std::fs::read_to_string(file).ok()))
                .and_then(|token| Token::new(&token)),
            hub_cache: path("HF_HUB_CACHE").or_else(|| hub_home.map(|home| home.join("hub"))),
            offline: ["TERCEL_OFFLINE", "HF_HUB_OFFLINE"]
                .into_iter()
                .any(|name| {
                    text(name).is_some_and(|value| {
                        ["1", "true", "yes", "on"].contains(&value.to_lowercase().as_str())
                    })
                }),
            pip: pip_commands(),
            pip_variables: Vec::new(),
            timeouts: Timeouts::default(),
        }
    }

    /// The directory of the store.
    ///
    /// # Errors
    /// [`SourceError::NoHome`] if no variable names a place.
    pub fn store(&self) -> Result<&Path, SourceError> {
        self.store.as_deref().ok_or(SourceError::NoHome)
    }
}

/// How long to wait before a source counts as unreachable or dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timeouts {
    /// For a name to resolve, and again for a connection to stand.
    pub connect: Duration,
    /// For the head of a response.
    pub response: Duration,
    /// Without a single byte in the middle of a response.
    pub stall: Duration,
    /// For pip to get an answer on a connection, unless the user's own settings of pip say; whole
    /// seconds, at least one.
    pub pip_connection: Duration,
    /// Without a byte of progress from pip. Long, since an index may fetch a package itself first.
    pub pip_stall: Duration,
    /// Before the first retry; doubled for each next one.
    pub backoff: Duration,
    /// Attempts in a row that bring no byte before a source is given up.
    pub attempts: u32,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            response: Duration::from_secs(20),
            stall: Duration::from_secs(30),
            pip_connection: Duration::from_secs(8),
            pip_stall: Duration::from_secs(120),
            backoff: Duration::from_millis(500),
            attempts: 4,
        }
    }
}

/// An access token of the Hub. Neither `Debug` nor any message shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// The token without surrounding white space, unless that is nothing or no header value.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        let valid = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        valid.then(|| Self(text.to_owned()))
    }

    pub(super) fn authorization(&self) -> String {
        format!("Bearer {}", self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

fn pip_commands() -> Vec<Vec<OsString>> {
    [
        &["python3", "-m", "pip"][..],
        &["python", "-m", "pip"],
        &["pip3"],
        &["pip"],
    ]
    .iter()
    .map(|command| command.iter().map(OsString::from).collect())
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(variables: &[(&str, &str)]) -> Environment {
        Environment::from_lookup(|name| {
            variables
                .iter()
                .find(|(known, _)| *known == name)
                .map(|(_, value)| value.into())
        })
    }

    #[test]
    fn nothing_set_gives_the_public_hub_and_no_place() {
        let environment = environment(&[]);
        assert_eq!(environment.hub_endpoint, "https://huggingface.co");
        assert!(environment.hub_token.is_none() && !environment.offline);
        assert_eq!(
            environment.store().map_err(|error| error.kind()),
            Err("store_unwritable")
        );
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn directories_follow_their_variables() {
        for (variables, store, hub_cache) in [
            (
                &[("HOME", "/h")][..],
                "/h/.cache/tercel",
                "/h/.cache/huggingface/hub",
            ),
            (
                &[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")],
                "/x/tercel",
                "/x/huggingface/hub",
            ),
            (
                &[("HOME", "/h"), ("XDG_CACHE_HOME", "x"), ("TERCEL_HOME", "")],
                "/h/.cache/tercel",
                "/h/.cache/huggingface/hub",
            ),
            (
                &[("HOME", "/h"), ("TERCEL_HOME", "/t"), ("HF_HOME", "/f")],
                "/t",
                "/f/hub",
            ),
            (
                &[("HOME", "/h"), ("HF_HOME", "/f"), ("HF_HUB_CACHE", "/c")],
                "/h/.cache/tercel",
                "/c",
            ),
        ] {
            let environment = environment(variables);
            assert_eq!(environment.store.as_deref(), Some(Path::new(store)));
            assert_eq!(environment.hub_cache.as_deref(), Some(Path::new(hub_cache)));
        }
    }

    #[test]
    fn offline_is_what_the_hub_tools_call_true() {
        for (value, expected) in [
            ("1", true),
            ("TRUE", true),
            ("on", true),
            ("0", false),
            ("", false),
            ("no", false),
        ] {
            assert_eq!(environment(&[("TERCEL_OFFLINE", value)]).offline, expected);
            assert_eq!(environment(&[("HF_HUB_OFFLINE", value)]).offline, expected);
        }
    }

    #[test]
    fn a_token_is_read_from_its_file_and_never_shown() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = directory.path().join("token");
        std::fs::write(&file, "  secret-token\n").expect("written");
        let path = file.to_str().expect("a UTF-8 path");
        let read = environment(&[("HF_TOKEN_PATH", path)]);
        assert_eq!(read.hub_token, Token::new("secret-token"));
        assert!(!format!("{read:?}").contains("secret"));
        let first = environment(&[("HF_TOKEN", "other"), ("HF_TOKEN_PATH", path)]);
        assert_eq!(first.hub_token, Token::new("other"));
        assert_eq!(Token::new("two\r\nlines"), None);
    }
}
