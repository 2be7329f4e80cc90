//! The `gateway` program: serve, or look after configuration and models.

use std::{process::ExitCode, time::Duration};

use anyhow::Context;
use clap::{Parser, Subcommand};
use gateway::{
    Config,
    config::{ConfigCommand, ServeFlags},
    model_store::ModelCommand,
    shutdown,
    telemetry::{Telemetry, logs},
};
use tokio::net::TcpListener;

/// Time to send what telemetry is left at the end.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// An inference gateway that shows where the time of every LLM request goes. Without a command it serves.
#[derive(Debug, Parser)]
#[command(name = "gateway", version)]
struct Cli {
    #[command(flatten)]
    flags: ServeFlags,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check or show the configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// List, pull or make up models.
    #[command(subcommand)]
    Model(ModelCommand),
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        None => serve(&cli.flags).await,
        Some(Command::Config(command)) => command.run(&cli.flags).map(|text| println!("{text}")).map_err(Into::into),
        Some(Command::Model(command)) => command.run().await,
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(flags: &ServeFlags) -> anyhow::Result<()> {
    let config = Config::load(flags)?;
    logs::init(&config.log);
    let device = config.model.load_options().device.info();
    let telemetry = Telemetry::init_on(&config.telemetry, device.as_ref())?;
    let stop = shutdown::on_signals().context("cannot listen for signals")?;
    let address = config.server.address();
    let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
    tracing::info!(address = %listener.local_addr()?, model = config.model.served_name(), "listening");
    let result = gateway::run(config, telemetry.clone(), listener, stop).await;
    tokio::task::spawn_blocking(move || telemetry.shutdown(FLUSH_TIMEOUT)).await?;
    Ok(result?)
}
