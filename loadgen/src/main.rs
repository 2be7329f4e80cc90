//! Arguments, log, run, exit status.

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser as _};
use loadgen::cli::{Args, Cli, Command, HOST_VARIABLE};
use loadgen::commands::{analyze, run};
use loadgen::words::{plain, tell};
use tracing_subscriber::EnvFilter;

/// Characters of an error that are shown: it may hold what a server said.
const ERROR_LIMIT: usize = 2000;

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    // Goose would install a logger that writes to stdout; the first one installed stays.
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("error"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let done = match &cli.command {
        Some(Command::Analyze(args)) => analyze(args).await,
        None => load(&cli.run).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell(&format!("error: {}", plain(&format!("{error:#}"), ERROR_LIMIT)));
            ExitCode::FAILURE
        }
    }
}

async fn load(args: &Args) -> anyhow::Result<()> {
    let host = args.host(std::env::var_os(HOST_VARIABLE).as_deref());
    let host = host.unwrap_or_else(|wrong| Cli::command().error(ErrorKind::ValueValidation, wrong).exit());
    let report = run(args, host).await?;
    anyhow::ensure!(report.summary.requests.succeeded > 0, "no request succeeded");
    Ok(())
}
