//! `analyze`: inputs → requests → where their time went, and what to change.

use super::json_output::JsonOutput;
use crate::analysis::analyse;
use crate::analysis::sources::{Query, gather};
use crate::cli::AnalyzeArgs;
use crate::report::{write_analysis, write_analysis_json};

/// Analyses what `args` name, and writes the answer.
pub async fn analyze(args: &AnalyzeArgs) -> anyhow::Result<()> {
    let AnalyzeArgs { inputs, service, limit, window, json } = args;
    let query = Query { inputs: inputs.clone(), service: service.clone(), limit: *limit as usize, window: *window };
    let (evidence, sources) = gather(&query).await?;
    // Only now: an input that is named as the output too is read before it is overwritten.
    let output = JsonOutput::open(json.as_deref())?;
    let analysis = analyse(&evidence);
    output.publish(
        |mut out| write_analysis(&analysis, &sources, &mut out),
        |mut out| write_analysis_json(&analysis, &sources, &mut out),
    )
}
