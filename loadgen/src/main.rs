//! Arguments, log, run, exit status.

use std::process::ExitCode;

use clap::Parser as _;
use loadgen::cli::Args;
use loadgen::commands::run;
use tracing_subscriber::EnvFilter;

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    // Goose would install a logger that writes to stdout; the first one installed stays.
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("error"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match run(&args).await {
        Ok(report) if report.summary.requests.succeeded > 0 => ExitCode::SUCCESS,
        Ok(_) => {
            eprintln!("error: no request succeeded");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
