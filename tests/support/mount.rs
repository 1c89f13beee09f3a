//! A folder of files as Kubernetes mounts a ConfigMap or a Secret: each name leads through `..data`, which is replaced in one step.

use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

/// The files, each readable by its owner only.
#[derive(Debug)]
pub struct Mount {
    folder: PathBuf,
    files: BTreeMap<String, String>,
    swaps: usize,
}

impl Mount {
    /// An empty one in a folder that exists.
    pub fn at(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), files: BTreeMap::new(), swaps: 0 }
    }

    /// Adds and replaces files, all at once.
    pub fn put(&mut self, changes: &[(&str, &str)]) {
        self.swaps += 1;
        let fresh = format!("..{}", self.swaps);
        std::fs::create_dir(self.folder.join(&fresh)).unwrap();
        self.files.extend(changes.iter().map(|(name, content)| ((*name).to_owned(), (*content).to_owned())));
        for (name, content) in &self.files {
            let file = self.folder.join(&fresh).join(name);
            std::fs::write(&file, content).unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
            let link = self.folder.join(name);
            if !link.is_symlink() {
                symlink(format!("..data/{name}"), link).unwrap();
            }
        }
        symlink(&fresh, self.folder.join("..data_tmp")).unwrap();
        std::fs::rename(self.folder.join("..data_tmp"), self.folder.join("..data")).unwrap();
        if self.swaps > 1 {
            std::fs::remove_dir_all(self.folder.join(format!("..{}", self.swaps - 1))).unwrap();
        }
    }
}
