//! A directory of this process for the rooms that read files.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

static DIRECTORY: LazyLock<PathBuf> = LazyLock::new(|| {
    let path = std::env::temp_dir().join(format!("portolan-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&path).expect("the directory for temporary files can be written");
    path
});

/// The directory, holding one file with these bytes and nothing else.
pub fn holding(file: &str, bytes: &[u8]) -> &'static Path {
    std::fs::write(DIRECTORY.join(file), bytes).expect("the file can be written");
    &DIRECTORY
}
