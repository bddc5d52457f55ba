//! Objectives: rules made of `slo/weir.yml` by sloth.

use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use super::dashboards;

const SLOTH: &str = "github.com/slok/sloth/cmd/sloth@v0.16.0";

/// Built at first use, which needs Go.
fn sloth() -> Option<PathBuf> {
    let dir = weir_tests::cache().join("weir/sloth-0.16.0");
    let program = dir.join("sloth");
    if !program.exists() {
        let built =
            Command::new("go").args(["install", SLOTH]).env("GOBIN", &dir).env("GOFLAGS", "-mod=mod").output().ok()?;
        assert!(built.status.success(), "sloth is not built: {}", String::from_utf8_lossy(&built.stderr));
    }
    Some(program)
}

#[test]
fn rules_are_what_sloth_makes_of_the_objectives() {
    let Some(sloth) = sloth() else {
        let words = "NOT RUN: dashboards::objectives; it needs Go, to build sloth";
        writeln!(std::io::stderr(), "{words}").unwrap();
        return;
    };
    let made = tempfile::NamedTempFile::new().unwrap();
    let kept = dashboards().join("prometheus/slo.yml");
    let output = Command::new(sloth)
        .args(["generate", "-i"])
        .arg(dashboards().join("slo/weir.yml"))
        .arg("-o")
        .arg(made.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let rules = std::fs::read_to_string(made.path()).unwrap();
    if std::env::var_os("WEIR_WRITE").is_some() {
        std::fs::write(&kept, &rules).unwrap();
    }
    let words = "WEIR_WRITE=1 cargo test --test weir dashboards::objectives writes prometheus/slo.yml again";
    assert!(std::fs::read_to_string(kept).unwrap() == rules, "{words}");
}
