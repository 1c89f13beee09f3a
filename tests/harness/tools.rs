//! `tests/tools/ensure` keeps its promises.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use super::support::run::Run;
use super::support::tools::Tools;

/// What the script uses before it fetches or builds anything.
const BASICS: [&str; 17] = [
    "bash",
    "sed",
    "awk",
    "grep",
    "sha256sum",
    "cut",
    "cat",
    "uname",
    "dirname",
    "mkdir",
    "flock",
    "mktemp",
    "rm",
    "sort",
    "head",
    "tail",
    "env",
];

/// Runs the script with nothing in PATH but the basics, and `bin` before them.
fn ensure(run: &Run, cache: &Path, bin: &Path) -> Output {
    let basics = run.dir("basics");
    for name in BASICS {
        let found = std::env::split_paths(&std::env::var_os("PATH").unwrap()).map(|dir| dir.join(name)).find(|path| path.exists());
        let _ = symlink(found.unwrap_or_else(|| panic!("{name} is not there")), basics.join(name));
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tools/ensure");
    let path = format!("{}:{}", bin.display(), basics.display());
    Command::new(script).env_clear().env("PATH", path).env("HOME", run.path()).env("KUBEPASS_TOOLS_CACHE", cache).output().unwrap()
}

#[test]
fn a_second_run_needs_neither_network_nor_tools() {
    let run = Run::new("ensure");
    let tools = Tools::ensure();
    let cache: PathBuf = tools.bin().parent().unwrap().parent().unwrap().into();
    let began = Instant::now();
    let output = ensure(&run, &cache, &run.dir("none"));
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), tools.bin().to_str().unwrap());
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}

#[test]
fn all_that_is_missing_is_named_at_once() {
    let run = Run::new("missing");
    let old = run.write("old/go", "#!/bin/sh\necho go1.22.3\n");
    std::fs::set_permissions(&old, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let output = ensure(&run, &run.file("cache"), &run.dir("old"));
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    for part in
        ["go: found 1.22.3, at least 1.26 is needed", "node: not found", "apt-get install npm", "python3: not found", "pip: not found"]
    {
        assert!(said.contains(part), "{part}\n{said}");
    }
}
