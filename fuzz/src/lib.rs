//! What the fuzz targets share: worlds made from bytes, and what must hold of every reply.

pub mod checks;
pub mod client;
pub mod contents;
pub mod input;
pub mod scratch;
pub mod wire;
pub mod words;
pub mod world;

/// Tells what an input means, when a single one is looked at (`fuzz/run TARGET FILE`).
pub fn show(what: impl Fn() -> String) {
    static WANTED: std::sync::LazyLock<bool> =
        std::sync::LazyLock::new(|| std::env::var_os("PORTOLAN_FUZZ_SHOW").is_some());
    if *WANTED {
        eprintln!("{}", what());
    }
}
