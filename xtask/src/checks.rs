//! Everything that must pass before a change is merged, in the order in which failures are cheapest.
//!
//! Each step is named as it starts, and its time is printed when it ends. The first failure stops the run; the error carries
//! the step's name.

use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::cargo::cargo;
use crate::{dependencies, packages};

/// One command of cargo.
struct Step {
    name: &'static str,
    arguments: &'static [&'static str],
    environment: &'static [(&'static str, &'static str)],
    /// What a machine lacks if this step's command does not exist.
    component: Option<&'static str>,
}

const STEPS: [Step; 5] = [
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

/// Runs all steps.
pub fn run() -> Result<()> {
    let started = Instant::now();
    timed("system packages", packages::install_missing)?;
    for step in &STEPS {
        timed(step.name, || step.run())?;
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

impl Step {
    fn run(&self) -> Result<()> {
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
