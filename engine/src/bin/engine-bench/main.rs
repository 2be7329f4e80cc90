//! `engine-bench`: how near the engine comes to what the machine can do, and how it compares with a peer.
//!
//! - `args`: the options;
//! - `rows`: what is measured, and what a pass of it has to move and to multiply;
//! - `subject`: the model on its device, and what that can do at most;
//! - `measure`: the rounds, each row beside the machine's limits, a peer's turn after ours;
//! - `peer`: runs the peer's command and reads what it prints;
//! - `whole`: the same decode rows through the whole engine, for what a step costs besides the model;
//! - `report`: figures from times, as a table or as JSON.

mod args;
mod measure;
mod peer;
mod report;
mod rows;
mod subject;
mod whole;

use std::process::ExitCode;

use args::Args;
use clap::Parser;
use measure::measure;
use report::Report;

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> anyhow::Result<()> {
    let device = args.device().open()?;
    // Refused before anything is measured.
    let engine = args.engine.then(|| whole::config(args, &device)).transpose()?;
    let rows = rows::all(&args.prompt, &args.batch);
    eprintln!("loading {}", args.model.display());
    let mut subject = subject::open(args, &rows, &device)?;
    let measured = measure(args, &rows, args.step_tokens(&device), &mut *subject)?;
    // The engine brings weights and a cache of its own.
    drop(subject);
    let whole = engine.map_or_else(|| Ok(Vec::new()), |config| whole::measure(args, config))?;
    let report = Report::new(args, &device, &measured, &whole);
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print!("{report}");
    }
    Ok(())
}
