//! Whose the file and the socket are. One process keeps one HAProxy; it takes no file that somebody else wrote, and
//! sends nothing to an HAProxy that it did not start.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use tracing::warn;

use super::Settings;
use super::file::Target;

/// How the first line of what we write begins.
const MARK: &str = "# Written by portolan";

/// Why a file or a socket is not ours to take.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// Another one of us keeps it.
    #[error(
        "another `portolan haproxy` keeps {}: end it, or give each its own --output and --master-socket",
        path.display()
    )]
    Taken {
        /// The file or the socket.
        path: PathBuf,
    },
    /// An HAProxy that we have not started is at the socket.
    #[error(
        "an HAProxy that portolan has not started (process {pid}) is at {}: stop it and its unit \
         (`systemctl disable --now haproxy`), or choose another --master-socket; --no-exec keeps that one right",
        socket.display()
    )]
    Foreign {
        /// The socket.
        socket: PathBuf,
        /// Its process.
        pid: u32,
    },
    /// Somebody else wrote the file.
    #[error(
        "{} was not written by portolan and would be lost: choose another --output, or take it over with \
         --adopt-config, which keeps it beside the new one",
        file.display()
    )]
    NotOurs {
        /// The file.
        file: PathBuf,
    },
    /// The system does not let us have it.
    #[error("{}: {source}", path.display())]
    System {
        /// What was to be had.
        path: PathBuf,
        /// What it says.
        source: io::Error,
    },
}

/// What is ours for as long as this lives.
#[derive(Debug)]
pub(super) struct Claim {
    _locks: Vec<Flock<File>>,
}

impl Claim {
    /// Takes the file and the socket of these settings.
    ///
    /// # Errors
    /// [`ClaimError`], and nothing is changed.
    pub(super) fn take(
        settings: &Settings,
        target: &Target,
        adopt: bool,
    ) -> Result<Self, ClaimError> {
        let mut locks = vec![lock(&settings.output)?];
        match lock(&settings.master_socket) {
            Ok(lock) => locks.push(lock),
            // The socket of an HAProxy that somebody else starts may be in a directory that is not ours.
            Err(error @ ClaimError::System { .. }) if !settings.exec => {
                warn!(%error, "cannot see whether another `portolan haproxy` uses the same socket");
            }
            Err(error) => return Err(error),
        }
        let system = |source| ClaimError::System {
            path: settings.output.clone(),
            source,
        };
        let text = target.read().map_err(system)?;
        if text.is_some_and(|text| !is_ours(&text)) {
            if !adopt {
                let file = settings.output.clone();
                return Err(ClaimError::NotOurs { file });
            }
            target.keep_original().map_err(system)?;
        }
        Ok(Self { _locks: locks })
    }
}

/// The lock beside a file, which the system lets go of when its holder ends.
fn lock(of: &Path) -> Result<Flock<File>, ClaimError> {
    let mut name = of.file_name().unwrap_or_default().to_owned();
    name.push(".lock");
    let path = of.with_file_name(name);
    let system = |source| ClaimError::System {
        path: path.clone(),
        source,
    };
    // Another user may have made it; who may read it may lock it.
    let opened = match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path),
        opened => opened,
    };
    let file = opened.map_err(system)?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        Errno::EWOULDBLOCK => ClaimError::Taken {
            path: of.to_owned(),
        },
        errno => system(errno.into()),
    })
}

/// Was this text written here? One that has nothing in it is nobody's.
pub(super) fn is_ours(text: &str) -> bool {
    text.trim().is_empty() || text.starts_with(MARK)
}

/// The text with our mark.
pub(super) fn with_mark(text: String) -> String {
    if text.starts_with(MARK) {
        return text;
    }
    format!(
        "{MARK} from a template of yours. What is changed here by hand is lost with the next change.\n{text}"
    )
}

/// Was the master process with this number started by an earlier life of ours, for this socket? What it was started
/// with tells.
pub(super) fn was_ours(pid: u32, socket: &str) -> bool {
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words: Vec<&[u8]> = words.split(|byte| *byte == 0).collect();
    let has = |wanted: &[&str]| {
        words.windows(wanted.len()).any(|window| {
            window
                .iter()
                .zip(wanted)
                .all(|(word, wanted)| *word == wanted.as_bytes())
        })
    };
    has(&["-W", "-db"]) && has(&["-S", socket])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_is_told_from_ours() {
        let built_in = include_str!("haproxy.cfg.j2");
        for (text, is) in [
            ("", true),
            ("\n \n", true),
            (built_in, true),
            ("global\n    maxconn 1\n", false),
            ("# written by hand\n", false),
        ] {
            assert_eq!(is_ours(text), is, "{text:?}");
            assert!(is_ours(&with_mark(text.to_owned())));
        }
        let once = with_mark("global\n".to_owned());
        assert_eq!(with_mark(once.clone()), once);
    }

    #[test]
    fn one_process_keeps_one_file() {
        let directory = tempfile::tempdir().expect("a directory");
        let settings = Settings {
            output: directory.path().join("haproxy.cfg"),
            master_socket: directory.path().join("master.sock"),
            ..Settings::default()
        };
        let target = Target::new(&settings.output);
        let take = |adopt| Claim::take(&settings, &target, adopt);
        let claim = take(false).expect("nobody else has it");
        assert!(matches!(take(false), Err(ClaimError::Taken { .. })));
        drop(claim);
        for text in ["one", "two", "two"] {
            fs::write(&settings.output, text).expect("written");
            assert!(matches!(take(false), Err(ClaimError::NotOurs { .. })));
            take(true).expect("it is taken over");
        }
        let kept = |name: &str| fs::read_to_string(directory.path().join(name)).ok();
        assert_eq!(kept("haproxy.cfg.before-portolan").as_deref(), Some("one"));
        assert_eq!(
            kept("haproxy.cfg.before-portolan.1").as_deref(),
            Some("two")
        );
        assert_eq!(
            kept("haproxy.cfg.before-portolan.2"),
            None,
            "it is kept already"
        );
    }
}
