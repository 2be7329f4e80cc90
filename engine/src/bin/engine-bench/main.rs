//! `engine-bench`: how near the engine comes to what the machine can do, and how it compares with a peer.
//!
//! - `args`: the options;
//! - `rows`: what is measured, and what a pass of it has to move and to multiply;
//! - `subject`: the model, the only file that knows how the engine's is called;
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

use std::{process::ExitCode, sync::Arc};

use anyhow::Context;
use args::Args;
use clap::Parser;
use engine::kernels::cpu::Threads;
use measure::{Meter, measure};
use report::Report;
use subject::Subject;

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
    // Refused before anything is measured.
    let engine = args.engine.then(|| whole::config(args)).transpose()?;
    let rows = rows::all(&args.prompt, &args.batch);
    eprintln!("loading {}", args.model.display());
    let threads = Arc::new(Threads::new(args.threads()).context("cannot start threads")?);
    let mut subject = Subject::open(args, &rows, Arc::clone(&threads))?;
    let meter = Meter::new(threads).context("cannot measure memory bandwidth")?;
    let measured = measure(args, &rows, &mut subject, &meter)?;
    // The engine brings weights and a cache of its own.
    drop((subject, meter));
    let whole = engine.map_or_else(|| Ok(Vec::new()), |config| whole::measure(args, config))?;
    let report = Report::new(args, &measured, &whole);
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print!("{report}");
    }
    Ok(())
}
