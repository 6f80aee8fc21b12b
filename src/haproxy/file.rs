//! haproxy.cfg on disk: proven beside the old one, then put in its place whole.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

/// Who may read a new file: it can hold the password of the statistics. And one that nobody but us reads.
const MODE: u32 = 0o640;
const OWN_MODE: u32 = 0o600;

/// How the name ends under which is kept what somebody else wrote.
const ORIGINAL: &str = "before-portolan";

/// What makes a file a secret, and the rights that one may have at most.
const SECRET: &[u8] = b"stats auth";
const SECRET_MODE: u32 = 0o770;

/// A file that is only ever replaced whole.
#[derive(Debug, Clone)]
pub(super) struct Target {
    path: PathBuf,
    /// Nobody else reads it.
    is_own: bool,
}

impl Target {
    pub(super) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            is_own: false,
        }
    }

    /// A file that nobody else is to read.
    pub(super) fn own(path: &Path) -> Self {
        Self {
            is_own: true,
            ..Self::new(path)
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Where a candidate is proven: in the same directory, so that relative paths mean the same. Each
    /// process has its own, so that a dry run does not get in the way of what runs.
    pub(super) fn candidate(&self) -> PathBuf {
        self.beside(&format!("{}.new", std::process::id()))
    }

    fn backup(&self) -> PathBuf {
        self.beside("bak")
    }

    fn beside(&self, ending: &str) -> PathBuf {
        let mut name = self.path.file_name().unwrap_or_default().to_owned();
        name.push(".");
        name.push(ending);
        self.path.with_file_name(name)
    }

    /// What is in it; `None` if there is no such file.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn read(&self) -> io::Result<Option<String>> {
        match fs::read(&self.path) {
            Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes the candidate.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn propose(&self, text: &str) -> io::Result<()> {
        self.write(&self.candidate(), text.as_bytes())
    }

    /// Takes the candidate away.
    pub(super) fn withdraw(&self) {
        // It may be in its place by now, or never have been written.
        drop(fs::remove_file(self.candidate()));
    }

    /// Puts the candidate in place, and keeps what was there as the one backup, if it is another.
    ///
    /// # Errors
    /// What the system says; the old file stays.
    pub(super) fn replace(&self) -> io::Result<()> {
        match fs::read(&self.path) {
            // With the same for a backup there would be no way back.
            Ok(old) if fs::read(self.candidate()).is_ok_and(|new| new == old) => {}
            Ok(old) => {
                let copy = self.beside(&format!("{}.bak", std::process::id()));
                self.write(&copy, &old)?;
                fs::rename(copy, self.backup())?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        fs::rename(self.candidate(), &self.path)?;
        self.sync_directory()
    }

    /// Keeps a copy of what somebody else wrote under a name that nothing is ever written to again.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn keep_original(&self) -> io::Result<()> {
        let old = fs::read(&self.path)?;
        for number in 0_u32.. {
            let ending = match number {
                0 => ORIGINAL.to_owned(),
                number => format!("{ORIGINAL}.{number}"),
            };
            let copy = self.beside(&ending);
            match fs::read(&copy) {
                Ok(kept) if kept == old => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.write(&copy, &old)?;
                    return self.sync_directory();
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes the whole file at once.
    ///
    /// # Errors
    /// What the system says; the old file stays.
    pub(super) fn write_whole(&self, text: &str) -> io::Result<()> {
        self.propose(text)?;
        fs::rename(self.candidate(), &self.path)?;
        self.sync_directory()
    }

    /// Writes a new file with the owner and the rights of the one that it will replace; a secret is not
    /// for everybody.
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut file = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(true)
            .mode(if self.is_own { OWN_MODE } else { MODE })
            .open(path)?;
        if self.is_own {
            file.set_permissions(Permissions::from_mode(OWN_MODE))?;
        } else if let Ok(old) = fs::metadata(&self.path) {
            // Only root may give a file away; whoever else may not give it to its group.
            if fchown(&file, Some(old.uid()), Some(old.gid())).is_err() {
                drop(fchown(&file, None, Some(old.gid())));
            }
            let is_secret = bytes.windows(SECRET.len()).any(|part| part == SECRET);
            let most = if is_secret { SECRET_MODE } else { 0o7777 };
            file.set_permissions(Permissions::from_mode(old.permissions().mode() & most))?;
        }
        file.write_all(bytes)?;
        // The rename must not become durable before the content.
        file.sync_all()
    }

    fn sync_directory(&self) -> io::Result<()> {
        let directory = self
            .path
            .parent()
            .filter(|path| !path.as_os_str().is_empty());
        File::open(directory.unwrap_or_else(|| Path::new(".")))?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_backup_is_kept_and_rights_stay() {
        let directory = tempfile::tempdir().expect("a directory");
        let target = Target::new(&directory.path().join("haproxy.cfg"));
        assert_eq!(target.read().expect("no error"), None);
        for text in ["one", "two", "three"] {
            target.propose(text).expect("written");
            target.replace().expect("replaced");
            if text == "one" {
                let mode = fs::metadata(target.path()).expect("there").permissions();
                assert_eq!(mode.mode() & 0o777, MODE);
                fs::set_permissions(target.path(), Permissions::from_mode(0o604)).expect("set");
            }
        }
        assert_eq!(target.read().expect("there").as_deref(), Some("three"));
        assert_eq!(fs::read(target.backup()).expect("a backup"), b"two");
        let mode = fs::metadata(target.path()).expect("there").permissions();
        assert_eq!(mode.mode() & 0o777, 0o604);
        // What is a secret is no longer for everybody, and the same again is no way back.
        for _ in 0..2 {
            target.propose("stats auth me:secret").expect("written");
            target.replace().expect("replaced");
        }
        let mode = fs::metadata(target.path()).expect("there").permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);
        assert_eq!(fs::read(target.backup()).expect("a backup"), b"three");
        target.propose("four").expect("written");
        target.withdraw();
        let names = fs::read_dir(directory.path()).expect("there").count();
        assert_eq!(names, 2);
    }
}
