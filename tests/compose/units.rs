//! `packaging/`: what systemd says of the units.

use crate::{
    support::{directory, program},
    world::root,
};
use std::{fs, process::Command};

/// Of 10; from 5 on systemd calls it medium. What is left is what a name server is for.
const EXPOSURE: f64 = 2.0;

#[test]
fn systemd_accepts_the_units() {
    let files = directory();
    let mut units = Vec::new();
    for unit in ["portolan.service", "portolan.socket"] {
        let text = fs::read_to_string(root().join("packaging").join(unit)).expect("a unit");
        let text = text.replace("/usr/local/bin/portolan", env!("CARGO_BIN_EXE_portolan"));
        let file = files.path().join(unit);
        fs::write(&file, text).expect("writing a unit");
        units.push(file);
    }
    let verify = Command::new(program("systemd-analyze"))
        .arg("verify")
        .args(&units)
        .output()
        .expect("running systemd-analyze");
    let said = String::from_utf8_lossy(&verify.stderr);
    assert!(verify.status.success() && said.is_empty(), "{said}");

    let threshold = format!("--threshold={}", EXPOSURE * 10.0);
    let security = Command::new(program("systemd-analyze"))
        .args(["security", "--no-pager", "--offline=true", &threshold])
        .arg(&units[0])
        .output()
        .expect("running systemd-analyze");
    let said = String::from_utf8_lossy(&security.stdout);
    assert!(security.status.success(), "{said}");
    assert!(said.contains("Overall exposure level"), "{said}");
}
