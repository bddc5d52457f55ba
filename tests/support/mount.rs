//! A file system of the tests' own, small or read-only, in memory.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A mounted tmpfs; unmounted when dropped.
pub struct Mount {
    path: PathBuf,
}

impl Mount {
    /// Mounts one of such a size (`2m`, `64k`) on a directory; `None`, said loudly, for those who may not mount.
    #[must_use]
    pub fn on(path: &Path, size: &str, test: &str) -> Option<Self> {
        std::fs::create_dir_all(path).unwrap();
        let options = format!("size={size},mode=0755");
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "weir-test"]).arg(path).output().unwrap();
        if !done.status.success() {
            // Past the capture of what tests print: nobody should believe that this was shown.
            let words = String::from_utf8_lossy(&done.stderr).into_owned();
            std::io::Write::write_fmt(
                &mut std::io::stderr(),
                format_args!("NOT RUN: {test}; it mounts a small file system, which needs root: {words}"),
            )
            .unwrap();
            return None;
        }
        Some(Self { path: path.to_owned() })
    }

    /// Mounts it again, with options such as `size=200m` or `ro`.
    pub fn remount(&self, options: &str) {
        self.try_remount(options).unwrap();
    }

    /// [`Self::remount`], which may be refused while files are open.
    pub fn try_remount(&self, options: &str) -> Result<(), String> {
        let options = format!("remount,{options}");
        let done = Command::new("mount").args(["-o", &options]).arg(&self.path).output().unwrap();
        if done.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&done.stderr).into_owned()) }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: a process that is just ending may still have a file open.
        drop(Command::new("umount").arg("-l").arg(&self.path).status());
    }
}
