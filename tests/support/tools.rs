//! The pinned binaries of `tests/tools`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// Where the pinned tools stand.
#[derive(Clone, Debug)]
pub struct Tools {
    bin: PathBuf,
    matrix: Option<PathBuf>,
}

/// The Envoy of this run when it is another than the pinned one: "1.39", say.
const ENVOY: &str = "KUBEPASS_TEST_ENVOY";

impl Tools {
    /// Runs `tests/tools/ensure` once in this process: instant when the cache is filled, otherwise its progress shows on standard error.
    pub fn ensure() -> &'static Self {
        static TOOLS: OnceLock<Tools> = OnceLock::new();
        TOOLS.get_or_init(|| Self::run(&[]))
    }

    /// Also the API servers of the other supported versions.
    pub fn ensure_matrix() -> &'static Self {
        static TOOLS: OnceLock<Tools> = OnceLock::new();
        TOOLS.get_or_init(|| Self::run(&["--matrix"]))
    }

    fn run(args: &[&str]) -> Self {
        let script = repository().join("tests/tools/ensure");
        let output = Command::new(&script).args(args).stdin(Stdio::null()).stderr(Stdio::inherit()).output();
        let output = output.unwrap_or_else(|error| panic!("{}: {error}", script.display()));
        assert!(output.status.success(), "tests/tools/ensure failed; it says above what is missing");
        let text = String::from_utf8(output.stdout).expect("paths");
        let mut lines = text.lines().map(PathBuf::from);
        Self { bin: lines.next().expect("the first line is the directory"), matrix: lines.next() }
    }

    pub fn bin(&self) -> &Path {
        &self.bin
    }

    /// The one of this run: the pinned one, or what `KUBEPASS_TEST_ENVOY` names ("1.39"; `make test-matrix`).
    pub fn envoy(&self) -> PathBuf {
        std::env::var(ENVOY).map_or_else(|_| self.bin.join("envoy"), |minor| Self::envoy_of(&minor))
    }

    /// Another version, "1.38" or "1.39".
    pub fn envoy_of(minor: &str) -> PathBuf {
        static TOOLS: OnceLock<Tools> = OnceLock::new();
        let tools = TOOLS.get_or_init(|| Self::run(&["--envoys"]));
        tools.matrix.as_ref().expect("the second line is the directory").join(format!("envoy-{minor}"))
    }

    pub fn etcd(&self) -> PathBuf {
        self.bin.join("etcd")
    }

    pub fn kube_apiserver(&self) -> PathBuf {
        self.bin.join("kube-apiserver")
    }

    /// The one of this run: 1.36, or what `KUBEPASS_TEST_KUBERNETES` names ("1.34", "1.37"; `make test-matrix`).
    pub fn kube_apiserver_under_test(&self) -> PathBuf {
        match std::env::var("KUBEPASS_TEST_KUBERNETES") {
            Ok(minor) => Self::ensure_matrix().kube_apiserver_of(&minor),
            Err(_) => self.kube_apiserver(),
        }
    }

    /// Another version, "1.34" or "1.37"; only from [`Tools::ensure_matrix`].
    pub fn kube_apiserver_of(&self, minor: &str) -> PathBuf {
        self.matrix.as_ref().expect("Tools::ensure_matrix was used").join(format!("kube-apiserver-{minor}"))
    }

    pub fn kubectl(&self) -> PathBuf {
        self.bin.join("kubectl")
    }

    pub fn kwok(&self) -> PathBuf {
        self.bin.join("kwok")
    }

    pub fn helm(&self) -> PathBuf {
        self.bin.join("helm")
    }

    /// kwok's own stages: pods and nodes become Ready at once.
    pub fn kwok_stages(&self) -> PathBuf {
        self.cache().join("kwok-stages")
    }

    /// Holds `node_modules` with oidc-provider.
    pub fn idp_dir(&self) -> PathBuf {
        self.cache().join("idp")
    }

    /// The provider's script in this repository.
    pub fn idp_script(&self) -> PathBuf {
        repository().join("tests/tools/idp/provider.mjs")
    }

    fn cache(&self) -> &Path {
        self.bin.parent().expect("bin has a parent")
    }
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
