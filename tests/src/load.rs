//! The `loadgen` binary as a process: a run, and the analysis of it.

use std::{path::PathBuf, process::Stdio};

use anyhow::Context;
use serde_json::Value;
use tokio::process::Command;

use crate::gateway::binary;

/// How to start one.
#[derive(Debug, Default, Clone)]
pub struct Load {
    flags: Vec<String>,
    variables: Vec<(String, String)>,
}

/// A run that is over.
#[derive(Debug)]
pub struct Run {
    folder: tempfile::TempDir,
    /// The JSON report.
    pub report: Value,
    /// The printed one.
    pub printed: String,
}

impl Load {
    /// One of `users`, all started as good as at once, for two seconds: what is under way then is followed to
    /// its end, and the server's metrics are read amid it.
    pub fn of(users: u32) -> Self {
        let load = Self::default().flag("--users", users).flag("--spawn-rate", 100).flag("--run-time", "2s");
        load.switch("--ignore-eos")
    }

    /// Adds a flag with its value; a later one of the same name counts.
    pub fn flag(mut self, name: &str, value: impl ToString) -> Self {
        if let Some(place) = self.flags.iter().position(|flag| flag == name) {
            self.flags.drain(place..=place + 1);
        }
        self.flags.extend([name.to_owned(), value.to_string()]);
        self
    }

    fn switch(mut self, name: &str) -> Self {
        self.flags.push(name.to_owned());
        self
    }

    /// Sets a variable of its environment.
    pub fn variable(mut self, name: &str, value: impl ToString) -> Self {
        self.variables.push((name.to_owned(), value.to_string()));
        self
    }

    /// Loads the server at `url`.
    pub async fn run(self, url: &str) -> anyhow::Result<Run> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("report.json");
        let output = Command::new(binary("loadgen")?)
            // A busy machine must not have its long answers cut.
            .args(["--quiet", "--grace", "60s", "--host", url])
            .args(self.flags)
            .arg("--json")
            .arg(&path)
            .env_remove("RUST_LOG")
            .env_remove("OTEL_EXPORTER_OTLP_ENDPOINT")
            .envs(self.variables)
            .kill_on_drop(true)
            .output()
            .await?;
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        println!("{printed}{}", String::from_utf8_lossy(&output.stderr));
        let report = std::fs::read_to_string(&path).with_context(|| format!("loadgen gave {}", output.status))?;
        Ok(Run { folder, report: serde_json::from_str(&report).context("the report")?, printed })
    }
}

impl Run {
    /// What `loadgen analyze` says of it.
    pub async fn analysis(&self) -> anyhow::Result<Value> {
        let [report, analysis] = ["report.json", "analysis.json"].map(|name| self.path(name));
        let output = Command::new(binary("loadgen")?)
            .arg("analyze")
            .arg(report)
            .arg("--json")
            .arg(&analysis)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await?;
        println!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        anyhow::ensure!(output.status.success(), "loadgen analyze gave {}", output.status);
        Ok(serde_json::from_str(&std::fs::read_to_string(analysis)?)?)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}
