//! Secrets: Consul's ACL token and HAProxy's credentials, which must never reach a log, a message or a
//! debug print.

use std::fmt;
use std::path::{Path, PathBuf};

/// A token, or a user with a password. Printing it in any way prints a placeholder.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// Takes the text of a token, without the white space that editors leave around it.
    ///
    /// # Errors
    /// When it is empty or holds a character that no HTTP header can carry.
    pub fn new(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.is_empty() {
            return Err("the token is empty".to_owned());
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("the token holds a character that is not printable ASCII".to_owned());
        }
        Ok(Self(text.to_owned()))
    }

    /// The secret itself, for the request header and nothing else.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(hidden)")
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

/// Where the ACL token comes from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum TokenSource {
    /// No token: Consul's anonymous one.
    #[default]
    Anonymous,
    /// Written in the file or the environment.
    Given(Token),
    /// In a file of its own, which is read anew at every reload.
    File(PathBuf),
}

impl TokenSource {
    /// The token as of now. Reads the token file, so call it at start and at each reload.
    ///
    /// # Errors
    /// When the file cannot be read or holds no token. An empty file is an error because
    /// reading Consul as nobody would make services vanish without a word.
    pub fn read(&self) -> Result<Option<Token>, FileError> {
        match self {
            Self::Anonymous => Ok(None),
            Self::Given(token) => Ok(Some(token.clone())),
            Self::File(path) => read_file(path).map(Some),
        }
    }
}

/// Why a file gave no token: `FILE: REASON`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", path.display())]
pub struct FileError {
    path: PathBuf,
    message: String,
}

fn read_file(path: &Path) -> Result<Token, FileError> {
    let failed = |message| FileError {
        path: path.to_owned(),
        message,
    };
    let text = std::fs::read_to_string(path)
        .map_err(|error| failed(format!("the token file cannot be read: {error}")))?;
    Token::new(&text).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_never_printed() {
        let token = Token::new("s3cret").expect("a token");
        let source = TokenSource::Given(token.clone());
        for shown in [
            format!("{token}"),
            format!("{token:?}"),
            format!("{source:?}"),
        ] {
            assert!(!shown.contains("s3cret"), "{shown}");
        }
        assert_eq!(token.expose(), "s3cret");
    }

    #[test]
    fn a_refused_token_is_not_printed_either() {
        for text in ["", " \n", "two words", "new\nline", "ü"] {
            let error = Token::new(text).expect_err("not a token");
            assert!(text.trim().is_empty() || !error.contains(text), "{error}");
        }
    }

    #[test]
    fn a_token_file_is_read_and_trimmed() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("token");
        let source = TokenSource::File(path.clone());

        let error = source.read().expect_err("no such file").to_string();
        assert!(error.contains("cannot be read"), "{error}");

        std::fs::write(&path, "\n").expect("written");
        let error = source.read().expect_err("an empty file").to_string();
        assert!(error.ends_with("token: the token is empty"), "{error}");

        std::fs::write(&path, "abc-def\n").expect("written");
        let token = source.read().expect("read").expect("a token");
        assert_eq!(token.expose(), "abc-def");
        assert_eq!(TokenSource::Anonymous.read(), Ok(None));
    }
}
