//! What the agent last said of its DNS settings, on disk beside the catalog, so that a restart while it is
//! away keeps them. The file is put in place as a whole, for us alone, and no link is followed.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::libc;

use super::DnsConfig;
use super::saved::create;

const FILE: &str = "agent.state";
const NEW: &str = "agent.new";

/// The longest file, in bytes. A thousand entries of `service_ttl` are some 30 kB.
const MAX_FILE: u64 = 1 << 20;

impl DnsConfig {
    /// What an earlier life has put into `directory`; `None` if it has not.
    ///
    /// # Errors
    /// A file that is no such thing, or cannot be read.
    pub fn remembered(directory: &Path) -> io::Result<Option<Self>> {
        // Neither a link nor a pipe, which would be waited for.
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(directory.join(FILE));
        let file = match opened {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        let mut text = Vec::new();
        file.take(MAX_FILE + 1).read_to_end(&mut text)?;
        is_short(&text)?;
        Ok(Some(serde_json::from_slice(&text)?))
    }

    /// Puts it into `directory`, which is made if it does not exist.
    ///
    /// # Errors
    /// What the system says.
    pub fn remember(&self, directory: &Path) -> io::Result<()> {
        let text = serde_json::to_vec(self)?;
        is_short(&text)?;
        fs::create_dir_all(directory)?;
        let new = directory.join(NEW);
        let mut file = create(&new)?;
        file.write_all(&text)?;
        // The rename must not become durable before the content.
        file.sync_all()?;
        fs::rename(&new, directory.join(FILE))
    }
}

fn is_short(text: &[u8]) -> io::Result<()> {
    match text.len() as u64 <= MAX_FILE {
        true => Ok(()),
        false => Err(io::Error::other("it is longer than 1 MiB")),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::process::Command;

    use super::*;

    fn settings() -> DnsConfig {
        let mut settings = DnsConfig::default();
        (settings.only_passing, settings.domain) = (true, "example.".to_owned());
        settings
    }

    #[test]
    fn it_comes_back_and_is_for_us_alone() {
        let place = tempfile::tempdir().expect("a directory");
        let directory = place.path().join("not/there/yet");
        assert_eq!(DnsConfig::remembered(&directory).expect("none"), None);
        for settings in [settings(), DnsConfig::default()] {
            settings.remember(&directory).expect("written");
            let remembered = DnsConfig::remembered(&directory).expect("readable");
            assert_eq!(remembered, Some(settings));
        }
        let metadata = fs::metadata(directory.join(FILE)).expect("there");
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
        let files = fs::read_dir(&directory).expect("there").count();
        assert_eq!(files, 1, "nothing is left beside it");
    }

    #[test]
    fn a_link_is_not_written_through() {
        let place = tempfile::tempdir().expect("a directory");
        let precious = place.path().join("precious");
        fs::write(&precious, "precious").expect("written");
        symlink(&precious, place.path().join(NEW)).expect("a link");
        assert!(settings().remember(place.path()).is_err());
        assert_eq!(fs::read(&precious).expect("there"), b"precious");
    }

    /// It is neither followed, waited for, nor read without end.
    #[test]
    fn what_is_no_such_file_is_refused() {
        for what in ["link", "pipe", "directory", "long", "damaged", "other"] {
            let place = tempfile::tempdir().expect("a directory");
            let file = place.path().join(FILE);
            settings().remember(place.path()).expect("written");
            let elsewhere = place.path().join("elsewhere");
            fs::rename(&file, &elsewhere).expect("moved");
            match what {
                "link" => symlink(&elsewhere, &file).expect("a link"),
                "pipe" => {
                    let made = Command::new("mkfifo").arg(&file).status();
                    assert!(made.is_ok_and(|status| status.success()), "mkfifo");
                }
                "directory" => fs::create_dir(&file).expect("a directory"),
                "long" => fs::write(&file, vec![b' '; MAX_FILE as usize + 2]).expect("written"),
                "damaged" => fs::write(&file, "{\"DNSDomain\":").expect("written"),
                _ => fs::write(&file, "[7]").expect("written"),
            }
            assert!(DnsConfig::remembered(place.path()).is_err(), "{what}");
        }
    }
}
