//! Files that outlive the process, beside each other in the directory of the state. They are for us alone and
//! whole at every moment; no link is followed, nothing is waited for, and nothing is read without end.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use nix::libc;

/// A token may have been needed to read what is in them.
pub(super) const MODE: u32 = 0o600;

/// One of them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kept {
    /// Its name.
    pub(super) name: &'static str,
    /// Its name while it is being written.
    pub(super) new: &'static str,
    /// Its length at most, in bytes, and in words.
    pub(super) most: u64,
    pub(super) most_in_words: &'static str,
}

impl Kept {
    /// What the one in `directory` holds.
    ///
    /// # Errors
    /// What the system says; or that it is no regular file, or too long.
    pub(super) fn read(&self, directory: &Path) -> io::Result<Vec<u8>> {
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(directory.join(self.name))?;
        let found = file.metadata()?;
        if !found.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        self.fits(found.len())?;
        let mut bytes = Vec::new();
        file.take(self.most + 1).read_to_end(&mut bytes)?;
        // It may have grown meanwhile.
        self.fits(bytes.len() as u64)?;
        Ok(bytes)
    }

    /// Could it be read again, if it has this length?
    ///
    /// # Errors
    /// That it is too long.
    pub(super) fn fits(&self, length: u64) -> io::Result<()> {
        match length <= self.most {
            true => Ok(()),
            false => {
                let words = self.most_in_words;
                Err(io::Error::other(format!("it is longer than {words}")))
            }
        }
    }

    /// Puts these parts, one behind the other, in its place.
    ///
    /// # Errors
    /// What the system says, and what was there before stays.
    pub(super) fn replace(&self, directory: &Path, parts: &[&[u8]]) -> io::Result<()> {
        let new = directory.join(self.new);
        let mut file = create(&new)?;
        for part in parts {
            file.write_all(part)?;
        }
        // The rename must not become durable before the content.
        file.sync_all()?;
        fs::rename(&new, directory.join(self.name))
    }
}

/// A new file for us alone; of a link nothing behind it is touched.
pub(super) fn create(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(MODE)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)?;
    // It may have been there, with other rights.
    file.set_permissions(Permissions::from_mode(MODE))?;
    Ok(file)
}
