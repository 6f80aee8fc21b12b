//! What the agent last said of its DNS settings, on disk beside the catalog, so that a restart while it is
//! away keeps them.

use std::fs;
use std::io;
use std::path::Path;

use super::DnsConfig;
use super::kept::Kept;

/// A thousand entries of `service_ttl` are some 30 kB.
const AGENT: Kept = Kept {
    name: "agent.state",
    new: "agent.new",
    most: 1 << 20,
    most_in_words: "1 MiB",
};

impl DnsConfig {
    /// What an earlier life has put into `directory`; `None` if it has not.
    ///
    /// # Errors
    /// A file that is no such thing, or cannot be read.
    pub fn remembered(directory: &Path) -> io::Result<Option<Self>> {
        match AGENT.read(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            text => Ok(Some(serde_json::from_slice(&text?)?)),
        }
    }

    /// Puts it into `directory`, which is made if it does not exist.
    ///
    /// # Errors
    /// What the system says.
    pub fn remember(&self, directory: &Path) -> io::Result<()> {
        let text = serde_json::to_vec(self)?;
        AGENT.fits(text.len() as u64)?;
        fs::create_dir_all(directory)?;
        AGENT.replace(directory, &[&text])
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
        let metadata = fs::metadata(directory.join(AGENT.name)).expect("there");
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
        let files = fs::read_dir(&directory).expect("there").count();
        assert_eq!(files, 1, "nothing is left beside it");
    }

    #[test]
    fn a_link_is_not_written_through() {
        let place = tempfile::tempdir().expect("a directory");
        let precious = place.path().join("precious");
        fs::write(&precious, "precious").expect("written");
        symlink(&precious, place.path().join(AGENT.new)).expect("a link");
        assert!(settings().remember(place.path()).is_err());
        assert_eq!(fs::read(&precious).expect("there"), b"precious");
    }

    /// It is neither followed, waited for, nor read without end.
    #[test]
    fn what_is_no_such_file_is_refused() {
        for what in ["link", "pipe", "directory", "long", "damaged", "other"] {
            let place = tempfile::tempdir().expect("a directory");
            let file = place.path().join(AGENT.name);
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
                "long" => fs::write(&file, vec![b' '; AGENT.most as usize + 2]).expect("written"),
                "damaged" => fs::write(&file, "{\"DNSDomain\":").expect("written"),
                _ => fs::write(&file, "[7]").expect("written"),
            }
            assert!(DnsConfig::remembered(place.path()).is_err(), "{what}");
        }
    }
}
