//! The `gateway` binary as a process.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Instant,
};

use anyhow::{Context, bail};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStderr, Command},
    task::JoinHandle,
};

use crate::{PATIENCE, model};

/// A running gateway; it is killed when dropped.
#[derive(Debug)]
pub struct Gateway {
    process: Child,
    url: String,
    client: reqwest::Client,
    log: Arc<Mutex<Vec<String>>>,
    logging: JoinHandle<()>,
    _model: Option<tempfile::TempDir>,
}

/// How to start one.
#[derive(Debug, Default)]
pub struct Launch {
    flags: Vec<String>,
    variables: Vec<(String, String)>,
    model: Option<String>,
}

impl Launch {
    /// Serves this model, with the gateway's own defaults, instead of the tiny one.
    pub fn model(mut self, model: impl ToString) -> Self {
        self.model = Some(model.to_string());
        self
    }

    /// Adds a flag with its value.
    pub fn flag(mut self, name: &str, value: impl ToString) -> Self {
        self.flags.extend([name.to_owned(), value.to_string()]);
        self
    }

    /// Sets a variable of its environment.
    pub fn variable(mut self, name: &str, value: impl ToString) -> Self {
        self.variables.push((name.to_owned(), value.to_string()));
        self
    }

    /// Starts it on a free port and waits until it is ready.
    pub async fn start(self) -> anyhow::Result<Gateway> {
        let (mut command, tiny) = self.command()?;
        let mut process = command.spawn()?;
        let errors = process.stderr.take().context("standard error is piped")?;
        let mut lines = BufReader::new(errors).lines();
        let address = tokio::time::timeout(PATIENCE, listening(&mut lines)).await.context("it never listened")??;
        let log = Arc::new(Mutex::new(Vec::new()));
        let logging = tokio::spawn(keep(lines, Arc::clone(&log)));
        let url = format!("http://{address}");
        let gateway = Gateway { process, url, client: client()?, log, logging, _model: tiny };
        gateway.wait_until("ready", "/health/ready", |status, _| status == 200).await?;
        Ok(gateway)
    }

    /// Starts it and waits until it ends by itself; gives the exit code and what it printed on standard error.
    pub async fn end(self) -> anyhow::Result<(Option<i32>, String)> {
        let (mut command, _tiny) = self.command()?;
        let output = tokio::time::timeout(PATIENCE, command.output()).await.context("it never ended")??;
        Ok((output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned()))
    }

    /// The command, and the folder of the tiny model, which must live as long as the process.
    fn command(self) -> anyhow::Result<(Command, Option<tempfile::TempDir>)> {
        let mut command = Command::new(binary("gateway")?);
        command.args(["--port", "0", "--log-format", "json"]);
        let tiny = match &self.model {
            Some(model) => {
                command.args(["--model", model]);
                None
            }
            None => Some(tiny(&mut command)?),
        };
        let command_line = command.args(self.flags).envs(self.variables).env_remove("RUST_LOG");
        command_line.stderr(Stdio::piped()).kill_on_drop(true);
        Ok((command, tiny))
    }
}

impl Gateway {
    /// One whose spans go to `endpoint`.
    pub fn traced(endpoint: &str) -> Launch {
        Launch::default().variable("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
    }

    /// `http://host:port`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A request to `/generate`, to be sent.
    pub fn generate(&self, body: &serde_json::Value) -> reqwest::RequestBuilder {
        self.client.post(format!("{}/generate", self.url)).json(body)
    }

    /// The lines logged so far, since it listens.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What `/metrics` says of one series, such as `engine_sequences{state="running"}`.
    pub async fn metric(&self, series: &str) -> anyhow::Result<Option<f64>> {
        let [value] = self.metrics([series]).await?;
        Ok(value)
    }

    /// What it says of several at the same time.
    pub async fn metrics<const N: usize>(&self, series: [&str; N]) -> anyhow::Result<[Option<f64>; N]> {
        let text = self.client.get(format!("{}/metrics", self.url)).send().await?.text().await?;
        Ok(series.map(|series| value_of(&text, series)))
    }

    /// Waits until a series has a value.
    pub async fn wait_for_metric(&self, series: &str, expected: f64) -> anyhow::Result<()> {
        let is = |_, text: &str| value_of(text, series) == Some(expected);
        self.wait_until(&format!("{series} = {expected}"), "/metrics", is).await
    }

    /// Asks `path` until `enough` holds of its status and body.
    async fn wait_until(&self, what: &str, path: &str, enough: impl Fn(u16, &str) -> bool) -> anyhow::Result<()> {
        let until = Instant::now() + PATIENCE;
        let mut last = String::new();
        while Instant::now() < until {
            let response = self.client.get(format!("{}{path}", self.url)).send().await?;
            let status = response.status().as_u16();
            last = response.text().await?;
            if enough(status, &last) {
                return Ok(());
            }
            tokio::task::yield_now().await;
        }
        bail!("never {what}; {path} says {last}")
    }

    /// Sends SIGTERM and waits for the end; gives the exit code.
    pub async fn stop(self) -> anyhow::Result<Option<i32>> {
        Ok(self.stop_and_read().await?.0)
    }

    /// The same, with all that was logged up to the end.
    pub async fn stop_and_read(mut self) -> anyhow::Result<(Option<i32>, Vec<String>)> {
        let id = self.process.id().context("it has ended already")?;
        let kill = Command::new("kill").args(["-TERM", &id.to_string()]).status().await?;
        anyhow::ensure!(kill.success(), "cannot send SIGTERM");
        let status = tokio::time::timeout(PATIENCE, self.process.wait()).await.context("it never ended")??;
        (&mut self.logging).await?;
        Ok((status.code(), self.log()))
    }
}

/// The tiny model, and what suits tests of it.
fn tiny(command: &mut Command) -> anyhow::Result<tempfile::TempDir> {
    let model = tempfile::tempdir()?;
    model::write(model.path())?;
    command.args(["--threads", "1", "--model"]).arg(model.path());
    command.env("GATEWAY_KV_MEMORY", "64MiB").env("OTEL_BSP_SCHEDULE_DELAY", "20");
    // Tests count spans; those of steps come as time passes.
    command.env("GATEWAY_STEP_SPANS_PER_SECOND", "0");
    Ok(model)
}

fn value_of(text: &str, series: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
}

/// Each request gets its own connection, so that dropping one is seen.
fn client() -> anyhow::Result<reqwest::Client> {
    Ok(reqwest::Client::builder().pool_max_idle_per_host(0).no_proxy().build()?)
}

/// The address in the line that says so.
async fn listening(lines: &mut Lines<BufReader<ChildStderr>>) -> anyhow::Result<String> {
    let mut seen = String::new();
    while let Some(line) = lines.next_line().await? {
        let event: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
        if event["message"] == "listening" {
            return Ok(event["address"].as_str().context("no address in the line")?.to_owned());
        }
        seen += &line;
        seen.push('\n');
    }
    bail!("the gateway ended: {seen}")
}

/// Reads on, so that the gateway is never stopped by a full pipe; shown if the test fails.
async fn keep(mut lines: Lines<BufReader<ChildStderr>>, log: Arc<Mutex<Vec<String>>>) {
    while let Ok(Some(line)) = lines.next_line().await {
        println!("gateway: {line}");
        log.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }
}

/// The path of a binary of this workspace, built once per test run.
///
/// The same profile, target folder and features as the tests have, so that nothing is built twice.
pub fn binary(name: &str) -> anyhow::Result<PathBuf> {
    static FOLDER: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| build().map_err(|error| format!("{error:#}")));
    let folder = folder.as_ref().map_err(|error| anyhow::anyhow!("cannot build the binaries: {error}"))?;
    Ok(folder.join(name))
}

fn build() -> anyhow::Result<PathBuf> {
    // TARGET/PROFILE/deps/e2e-HASH
    let test = std::env::current_exe()?;
    let folder = test.parent().and_then(Path::parent).context("the test lies in no target folder")?;
    let profile = match folder.file_name().and_then(|name| name.to_str()) {
        Some("debug") => "dev",
        Some(other) => other,
        None => bail!("the test lies in no profile's folder"),
    };
    let output = std::process::Command::new(env!("CARGO"))
        // With a test: its dependencies decide features, and other features would mean to build it all again.
        .args(["build", "--workspace", "--bins", "--test", "e2e", "--offline", "--profile", profile, "--target-dir"])
        .arg(folder.parent().context("the test lies in no target folder")?)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
        .output()?;
    anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(folder.to_owned())
}
