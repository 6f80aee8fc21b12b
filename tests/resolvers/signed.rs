//! A tree of signed zones below a root of our own, at one named: NSEC, NSEC3 with opt-out, delegations
//! without signatures, and one whose signatures are wrong.

use crate::{
    servers::Server,
    support::{directory, program, write_file},
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};
use tempfile::TempDir;

const HEAD: &str = "$TTL 300\n@ SOA ns.near. admin.near. 1 3600 600 86400 60\n@ NS ns.near.\n";

const ROOT: &str = "\
near.     NS ns.near.
ns.near.  A  127.0.0.1
hashed.   NS ns.near.
plain.    NS ns.near.
broken.   NS ns.near.
broken.   DS 12345 13 2 0000000000000000000000000000000000000000000000000000000000000000
";

const NEAR: &str = "\
ns       A     127.0.0.1
www      A     192.0.2.1
www      AAAA  2001:db8::1
alias    CNAME www
far      CNAME www.hashed.
out      CNAME www.plain.
gone     CNAME nothing
*.wild   A     192.0.2.2
*.calias CNAME www
sub      DNAME hashed.
mail     MX    10 www
text     TXT   \"hello\"
";

const HASHED: &str = "www A 192.0.2.3\n*.wild A 192.0.2.4\nopted NS ns.near.\n";
const PLAIN: &str = "www A 192.0.2.5\n";

/// Questions, and what they are about.
pub(crate) const QUESTIONS: &[(&str, &str)] = &[
    ("www.near", "A"),
    ("www.near", "AAAA"),
    ("www.near", "TXT"),
    ("alias.near", "A"),
    ("far.near", "A"),
    ("out.near", "A"),
    ("gone.near", "A"),
    ("nothing.near", "A"),
    ("x.wild.near", "A"),
    ("x.y.wild.near", "A"),
    ("x.wild.near", "TXT"),
    ("x.calias.near", "A"),
    ("www.sub.near", "A"),
    ("no.sub.near", "A"),
    ("mail.near", "MX"),
    ("text.near", "TXT"),
    ("near", "DNSKEY"),
    ("near", "DS"),
    ("near", "SOA"),
    ("near", "NS"),
    ("www.near", "ANY"),
    ("www.hashed", "A"),
    ("www.hashed", "TXT"),
    ("nothing.hashed", "A"),
    ("x.wild.hashed", "A"),
    ("x.wild.hashed", "MX"),
    ("www.opted.hashed", "A"),
    ("no.opted.hashed", "A"),
    ("opted.hashed", "DS"),
    ("www.plain", "A"),
    ("nothing.plain", "A"),
    ("plain", "DS"),
    ("www.broken", "A"),
    ("nothing", "A"),
];

/// named with the tree.
pub(crate) struct Tree {
    pub(crate) named: Server,
    /// The key of the root, as a record.
    pub(crate) anchor: PathBuf,
    /// The same as delv wants it.
    pub(crate) anchor_of_delv: PathBuf,
    _directory: TempDir,
}

impl Tree {
    pub(crate) fn new() -> Self {
        let own = directory();
        let path = own.path();
        sign(path, "near", NEAR, &[]);
        sign(path, "hashed", HASHED, &["-3", "-", "-H", "0", "-A"]);
        sign(path, "broken", PLAIN, &[]);
        write_file(path, "plain.zone", &format!("{HEAD}{PLAIN}"));
        let digest = |zone: &str| {
            fs::read_to_string(path.join(format!("dsset-{zone}."))).expect("the digest of a key")
        };
        let root = format!("{ROOT}{}{}", digest("near"), digest("hashed"));
        let key = sign(path, ".", &root, &[]);
        let key = fs::read_to_string(key).expect("the key of the root");
        let record = key
            .lines()
            .find(|line| line.contains("DNSKEY"))
            .expect("a key has a record");
        let (_, words) = record.split_once("DNSKEY ").expect("a record of a key");
        let mut words = words.split(' ');
        let fixed: Vec<&str> = words.by_ref().take(3).collect();
        let data: String = words.collect();
        let delv = format!(
            "trust-anchors {{ \".\" static-key {} \"{data}\"; }};\n",
            fixed.join(" ")
        );
        let named = Server::named(
            path,
            &[
                (".", "root.zone.signed"),
                ("near", "near.zone.signed"),
                ("hashed", "hashed.zone.signed"),
                ("broken", "broken.zone.signed"),
                ("plain", "plain.zone"),
                ("opted.hashed", "plain.zone"),
            ],
        );
        Self {
            named,
            anchor: write_file(path, "anchor.key", &format!("{record}\n")),
            anchor_of_delv: write_file(path, "anchor.delv", &delv),
            _directory: own,
        }
    }
}

/// Writes a zone and signs it with a key of its own. Gives the file of the key.
fn sign(directory: &Path, zone: &str, records: &str, how: &[&str]) -> PathBuf {
    let file = if zone == "." {
        "root.zone".to_owned()
    } else {
        format!("{zone}.zone")
    };
    write_file(directory, &file, &format!("{HEAD}{records}"));
    let run = |command: &mut Command| {
        let output = command
            .current_dir(directory)
            .output()
            .expect("running a tool of BIND");
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{command:?}: {errors}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    let mut keygen = Command::new(program("dnssec-keygen"));
    let key = run(keygen.args(["-q", "-a", "ECDSAP256SHA256", "-f", "KSK", zone]));
    let mut signzone = Command::new(program("dnssec-signzone"));
    run(signzone
        .args(["-q", "-z", "-S", "-o", zone])
        .args(how)
        .arg(&file));
    directory.join(format!("{key}.key"))
}
