//! Everything that must pass before a change is merged, in the order in which failures are cheapest.
//!
//! What boots a systemd of its own takes root and Debian's means. Where these are not, a line says so. Each step is named as it starts, and its time is printed when it ends. The first failure stops the run; the error carries
//! the step's name.

use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::cargo::cargo;
use crate::testbed::guest;
use crate::{dependencies, dist, packages};

/// How much is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Everything.
    Everything,
    /// All but the packages, and the tests that install them on a systemd.
    Quick,
}

/// One command of cargo.
struct Step<'a> {
    name: &'a str,
    arguments: &'a [&'a str],
    environment: &'a [(&'a str, &'a str)],
    /// What a machine lacks if this step's command does not exist.
    component: Option<&'a str>,
}

const STEPS: [Step<'_>; 5] = [
    Step { name: "formatting", arguments: &["fmt", "--all", "--check"], environment: &[], component: Some("rustfmt") },
    Step {
        name: "lints",
        arguments: &["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"],
        environment: &[],
        component: Some("clippy"),
    },
    Step {
        name: "programs",
        arguments: &["build", "--workspace", "--bins", "--locked"],
        environment: &[],
        component: None,
    },
    Step { name: "tests", arguments: &["test", "--workspace", "--locked"], environment: &[], component: None },
    Step {
        name: "documentation",
        arguments: &["doc", "--workspace", "--no-deps", "--document-private-items", "--locked"],
        environment: &[("RUSTDOCFLAGS", "-D warnings")],
        component: None,
    },
];

/// What the packages do on a system of a release of Debian.
fn try_packages_on(release: &str) -> Result<()> {
    timed(&format!("a system of {release} for guests"), || guest::tree(release).map(drop))?;
    Step {
        name: &format!("packages on a systemd of {release}"),
        arguments: &["test", "-p", "xtask", "--locked", "--test", "systemd", "--", "--ignored"],
        environment: &[(guest::RELEASE, release)],
        component: None,
    }
    .run()
}

/// Runs all steps.
pub fn run(extent: Extent) -> Result<()> {
    let started = Instant::now();
    timed("system packages", packages::install_missing)?;
    for step in &STEPS {
        step.run()?;
    }
    if extent == Extent::Everything {
        if packages::may_install() {
            timed("packages", dist::run)?;
            timed("system packages for guests", packages::install_missing_to_boot)?;
            guest::RELEASES.into_iter().try_for_each(try_packages_on)?;
        } else {
            eprintln!("NOT looked at: the packages, and what they do on a systemd, which takes root on a Debian");
        }
    }
    timed("dependencies", dependencies::check)?;
    eprintln!("all passed in {:.1} s", started.elapsed().as_secs_f64());
    Ok(())
}

fn timed(name: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    eprintln!("== {name}");
    let started = Instant::now();
    work().with_context(|| format!("failed at: {name}"))?;
    eprintln!("== {name}: passed in {:.1} s", started.elapsed().as_secs_f64());
    Ok(())
}

impl Step<'_> {
    fn run(&self) -> Result<()> {
        timed(self.name, || self.succeed())
    }

    fn succeed(&self) -> Result<()> {
        if let Some(component) = self.component {
            self.check_component(component)?;
        }
        let status = cargo()
            .args(self.arguments)
            .envs(self.environment.iter().copied())
            .status()
            .context("could not run cargo")?;
        if !status.success() {
            bail!("cargo {}: {status}", self.arguments.join(" "));
        }
        Ok(())
    }

    fn check_component(&self, component: &str) -> Result<()> {
        let version = cargo().arg(self.arguments[0]).arg("--version").output();
        if !version.is_ok_and(|output| output.status.success()) {
            bail!("{component} is missing: `rustup component add {component}`, or your system's package of it");
        }
        Ok(())
    }
}
