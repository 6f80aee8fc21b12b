//! The Docker Engine of this machine, through its own command line. A [`Docker`] is one test's part
//! of it: what it makes bears names and a label of its own, and vanishes with the value, also when
//! the test fails. What a killed test process left is removed by the next one.

use super::program;
use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc, Mutex, Once, PoisonError, Weak,
        atomic::{AtomicU32, Ordering},
    },
};

/// On everything that tests make; the value is the process and the number of the [`Docker`] in it.
const LABEL: &str = "portolan-test";

/// The programs of the test image, all of them busybox.
const APPLETS: [&str; 12] = [
    "cat", "hostname", "httpd", "kill", "nc", "nslookup", "ping", "rm", "sh", "sleep", "touch",
    "wget",
];

/// Runs `docker` with these arguments; its output without the last newline.
pub(crate) fn docker<A: AsRef<std::ffi::OsStr>>(arguments: &[A]) -> Result<String, String> {
    let output = Command::new(program("docker"))
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("running docker");
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout)
            .trim_end()
            .to_owned())
    } else {
        let shown: Vec<_> = arguments.iter().map(|word| word.as_ref()).collect();
        let error = String::from_utf8_lossy(&output.stderr);
        Err(format!("docker {shown:?}: {}", error.trim_end()))
    }
}

/// The image with busybox, one for each test process, while anything uses it.
#[derive(Debug)]
struct Image {
    name: String,
}

impl Image {
    fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<Image>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(image) = shared.upgrade() {
            return image;
        }
        let image = Arc::new(Self::make());
        *shared = Arc::downgrade(&image);
        image
    }

    fn make() -> Self {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let files = super::directory();
        let archive = busybox_archive(files.path());
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("{LABEL}-{}-{number}:latest", std::process::id());
        let label = format!("LABEL {LABEL}-image={}", std::process::id());
        docker(&["import", "--change", &label, &archive, &name])
            .unwrap_or_else(|error| panic!("{error}"));
        Self { name }
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        if let Err(error) = docker(&["rmi", "--force", &self.name]) {
            eprintln!("the test image stays: {error}");
        }
    }
}

/// Packs the root file system of the test image, in this directory; the archive's path.
pub(crate) fn busybox_archive(directory: &Path) -> String {
    let bin = directory.join("bin");
    std::fs::create_dir(&bin).expect("a directory for the image");
    std::fs::copy(busybox(), bin.join("busybox")).expect("copying busybox");
    for applet in APPLETS {
        std::os::unix::fs::symlink("busybox", bin.join(applet)).expect("a link to busybox");
    }
    let archive = directory.join("image.tar");
    let packed = Command::new(program("tar"))
        .args(["--create", "--owner=0", "--group=0", "--file"])
        .arg(&archive)
        .arg("--directory")
        .arg(directory)
        .arg("bin")
        .status()
        .expect("running tar");
    assert!(packed.success(), "tar could not pack the test image");
    archive.to_str().expect("a path in UTF-8").to_owned()
}

/// The static busybox that `tests/run` unpacks.
fn busybox() -> PathBuf {
    let file = env::var_os("PORTOLAN_BUSYBOX").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/programs/busybox/bin/busybox"),
        PathBuf::from,
    );
    assert!(
        file.is_file(),
        "no static busybox at {}: run tests/run, it gets one",
        file.display()
    );
    file
}

/// One test's part of the Docker Engine.
#[derive(Debug)]
pub(crate) struct Docker {
    /// The label's value, and the beginning of every name.
    mark: String,
    image: Arc<Image>,
}

impl Docker {
    /// Connects to the engine. A test that needs Docker fails without it; it is never skipped.
    pub(crate) fn new() -> Self {
        static SWEPT: Once = Once::new();
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        if let Err(error) = docker(&["version", "--format", "{{.Server.APIVersion}}"]) {
            panic!("no Docker Engine: run tests/run, it says how to get one ({error})");
        }
        SWEPT.call_once(sweep);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Self {
            mark: format!("{}-{number}", std::process::id()),
            image: Image::shared(),
        }
    }

    /// A name that nothing else on this machine bears.
    pub(crate) fn name(&self, short: &str) -> String {
        format!("pt{}-{short}", self.mark)
    }

    /// The name of the image with busybox.
    pub(crate) fn image(&self) -> &str {
        &self.image.name
    }

    /// `--label` for what a test makes by other ways than `run` and `network`.
    pub(crate) fn label(&self) -> String {
        format!("{LABEL}={}", self.mark)
    }

    /// Starts a container that sleeps, and is gone at once when it is stopped.
    pub(crate) fn sleeper(&self, name: &str, options: &[&str]) -> Container {
        self.run(name, options, &["sleep", "1000000"])
    }

    /// Starts a container with these options and this command. It runs under an init, so that
    /// `docker stop` ends it at once.
    pub(crate) fn run(&self, name: &str, options: &[&str], command: &[&str]) -> Container {
        let container = self.create(name, options, command);
        docker(&["start", &container.id]).unwrap_or_else(|error| panic!("{error}"));
        container
    }

    /// Makes a container without starting it.
    pub(crate) fn create(&self, name: &str, options: &[&str], command: &[&str]) -> Container {
        let (name, label) = (self.name(name), self.label());
        let mut arguments = vec!["create", "--init", "--name", &name, "--label", &label];
        arguments.extend(options);
        arguments.push(self.image());
        arguments.extend(command);
        let id = docker(&arguments).unwrap_or_else(|error| panic!("{error}"));
        Container { id, name }
    }

    /// Makes a network with these options.
    pub(crate) fn network(&self, name: &str, options: &[&str]) -> Network {
        let (name, label) = (self.name(name), self.label());
        let mut arguments = vec!["network", "create", "--label", &label];
        arguments.extend(options);
        arguments.push(&name);
        docker(&arguments).unwrap_or_else(|error| panic!("{error}"));
        Network { name }
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        remove(&self.label());
    }
}

/// A container of a test. It vanishes when the value does.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) name: String,
}

impl Container {
    /// `docker VERB CONTAINER`, for `stop`, `kill`, `start`, `pause` and the like.
    pub(crate) fn tell(&self, verb: &str) {
        docker(&[verb, &self.id]).unwrap_or_else(|error| panic!("{error}"));
    }

    /// Runs a command inside; what it writes, or why it failed.
    pub(crate) fn exec(&self, command: &[&str]) -> Result<String, String> {
        let mut arguments = vec!["exec", &self.id];
        arguments.extend(command);
        docker(&arguments)
    }

    /// What `docker inspect --format` says.
    pub(crate) fn inspect(&self, format: &str) -> String {
        docker(&["inspect", "--format", format, &self.id]).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Its address in a network; on the default bridge that is `bridge`.
    pub(crate) fn address(&self, network: &str) -> String {
        self.inspect(&format!(
            "{{{{(index .NetworkSettings.Networks {network:?}).IPAddress}}}}"
        ))
    }

    /// The host's port on which a port such as `80/tcp` is published.
    pub(crate) fn published(&self, port: &str) -> u16 {
        self.inspect(&format!(
            "{{{{(index (index .NetworkSettings.Ports {port:?}) 0).HostPort}}}}"
        ))
        .parse()
        .expect("a published port")
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // The test may have removed it.
        let _ = docker(&["rm", "--force", "--volumes", &self.id]);
    }
}

/// A network of a test. It vanishes with the test's [`Docker`].
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) name: String,
}

impl Network {
    /// The host's address in it.
    pub(crate) fn gateway(&self) -> String {
        docker(&[
            "network",
            "inspect",
            "--format",
            "{{(index .IPAM.Config 0).Gateway}}",
            &self.name,
        ])
        .unwrap_or_else(|error| panic!("{error}"))
    }
}

/// Removes all containers and networks with a label.
fn remove(label: &str) {
    let filter = format!("label={label}");
    let lists: [(&[&str], &[&str]); 2] = [
        (&["ps", "--all"], &["rm", "--force", "--volumes"]),
        (&["network", "ls"], &["network", "rm"]),
    ];
    for (list, remove) in lists {
        let mut listing = list.to_vec();
        listing.extend(["--quiet", "--no-trunc", "--filter", &filter]);
        let ids = docker(&listing).unwrap_or_default();
        if !ids.is_empty() {
            let mut removing = remove.to_vec();
            removing.extend(ids.lines());
            if let Err(error) = docker(&removing) {
                eprintln!("left behind: {error}");
            }
        }
    }
}

/// Removes what test processes left that no longer live.
fn sweep() {
    let dead = |process: &str| !Path::new("/proc").join(process).exists();
    let labels = |list: &[&str], label: &str| -> Vec<String> {
        let mut arguments = list.to_vec();
        let (filter, format) = (
            format!("label={label}"),
            format!("{{{{.Label {label:?}}}}}"),
        );
        arguments.extend(["--filter", &filter, "--format", &format]);
        let mut values: Vec<String> = docker(&arguments)
            .unwrap_or_default()
            .lines()
            .map(str::to_owned)
            .collect();
        values.sort();
        values.dedup();
        values
    };
    for list in [&["ps", "--all"][..], &["network", "ls"]] {
        for mark in labels(list, LABEL) {
            if dead(mark.split('-').next().unwrap_or_default()) {
                remove(&format!("{LABEL}={mark}"));
            }
        }
    }
    let filter = format!("label={LABEL}-image");
    let images = docker(&[
        "images",
        "--filter",
        &filter,
        "--format",
        "{{.Repository}}:{{.Tag}}",
    ])
    .unwrap_or_default();
    for image in images.lines() {
        let process = image
            .strip_prefix(LABEL)
            .and_then(|rest| rest.split('-').nth(1));
        if process.is_some_and(dead) {
            // Another test process may be at it too.
            let _ = docker(&["rmi", "--force", image]);
        }
    }
}
