//! haproxy.cfg on disk: proven beside the old one, then put in its place whole.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Who may read a new file: it can hold the password of the statistics.
const MODE: u32 = 0o640;

/// A file that is only ever replaced whole.
#[derive(Debug, Clone)]
pub(super) struct Target {
    path: PathBuf,
}

impl Target {
    pub(super) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Where a candidate is proven: in the same directory, so that relative paths mean the same.
    pub(super) fn candidate(&self) -> PathBuf {
        self.beside("new")
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

    /// Puts the candidate in place, and keeps what was there as the one backup.
    ///
    /// # Errors
    /// What the system says; the old file stays.
    pub(super) fn replace(&self) -> io::Result<()> {
        match fs::read(&self.path) {
            Ok(old) => {
                let copy = self.beside("bak.new");
                self.write(&copy, &old)?;
                fs::rename(copy, self.backup())?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        fs::rename(self.candidate(), &self.path)?;
        self.sync_directory()
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

    /// Writes a new file with the rights of the one that it will replace.
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut file = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(true)
            .mode(MODE)
            .open(path)?;
        if let Ok(old) = fs::metadata(&self.path) {
            file.set_permissions(Permissions::from_mode(old.permissions().mode() & 0o7777))?;
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
        let names = fs::read_dir(directory.path()).expect("there").count();
        assert_eq!(names, 2);
    }
}
