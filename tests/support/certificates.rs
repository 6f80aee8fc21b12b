//! Certificates of the tests, by the real openssl.

use super::{directory, program};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};
use tempfile::TempDir;

/// Runs openssl in a directory.
pub(crate) fn openssl(directory: &Path, arguments: &str) {
    let output = Command::new(program("openssl"))
        .args(arguments.split_whitespace())
        .current_dir(directory)
        .output()
        .expect("running openssl");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "openssl {arguments}: {errors}");
}

/// A key of a kind that is quick to make.
pub(crate) const NEW_KEY: &str = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";

/// An authority, with its files and those of the certificates that it issued in a directory.
pub(crate) struct Authority(TempDir);

impl Authority {
    pub(crate) fn new() -> Self {
        let directory = directory();
        let text = "[ca]\ndefault_ca = test\n[test]\ndatabase = ./issued\nnew_certs_dir = .\n\
                    rand_serial = yes\nunique_subject = no\ndefault_md = sha256\npolicy = any\n\
                    copy_extensions = copy\n[any]\ncommonName = supplied\n";
        fs::write(directory.path().join("ca.cnf"), text).expect("writing ca.cnf");
        fs::write(directory.path().join("issued"), "").expect("writing the list of certificates");
        openssl(
            directory.path(),
            &format!("req -x509 {NEW_KEY} -keyout ca.key -out ca.pem -subj /CN=test -days 30"),
        );
        Self(directory)
    }

    /// One of its files: `ca.pem`, `FILE.pem` and `FILE.key` of what was issued as `FILE`.
    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.0.path().join(file)
    }

    /// Issues a certificate for this name, such as `DNS:host.example` or `IP:192.0.2.1`, under a name of its own
    /// for its files.
    pub(crate) fn issue(&self, file: &str, name: &str) {
        self.issue_for(file, name, "-days 30");
    }

    /// The same, but it has run out long ago.
    pub(crate) fn issue_expired(&self, file: &str, name: &str) {
        self.issue_for(
            file,
            name,
            "-startdate 20200101000000Z -enddate 20200201000000Z",
        );
    }

    fn issue_for(&self, file: &str, name: &str, time: &str) {
        let directory = self.0.path();
        openssl(
            directory,
            &format!(
                "req {NEW_KEY} -keyout {file}.key -out {file}.csr -subj /CN={file} \
                 -addext subjectAltName={name} -addext basicConstraints=critical,CA:FALSE"
            ),
        );
        openssl(
            directory,
            &format!(
                "ca -batch -notext -config ca.cnf -cert ca.pem -keyfile ca.key -in {file}.csr \
                 -out {file}.pem {time}"
            ),
        );
    }
}
