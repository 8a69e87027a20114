//! `list`: names of what there is, or all that is known of it.

use std::process::ExitCode;

use anyhow::Result;
use bob_core::Backbone;
use bob_core::device::{BackendName, select};
use bob_data::datasets::datasets;
use bob_models::battle;
use serde_json::{Value, json};

use crate::args::{List, Listed};
use crate::report::put;
use crate::worker::battle_table;
use crate::worker::candidate::{Candidate, Candidates};
use crate::worker::protocol::Protocol;

/// Print the list.
pub fn run(args: &List) -> Result<ExitCode> {
    let rows = match args.what {
        Listed::Backbones => candidates(args, |_| true)?,
        Listed::Checkpoints => candidates(args, |candidate| !candidate.is_random())?,
        Listed::Datasets => datasets()
            .iter()
            .map(|info| {
                let files: Vec<Value> = (info.files)()
                    .into_iter()
                    .map(|(name, sources)| json!({"name": name, "sources": sources}))
                    .collect();
                json!({
                    "name": info.name,
                    "description": info.description,
                    "license": info.license,
                    "files": files,
                })
            })
            .collect(),
        Listed::Protocols => Protocol::all()
            .iter()
            .map(|protocol| {
                json!({
                    "name": protocol.name(),
                    "version": protocol.version(),
                    "task": protocol.task(),
                    "variant": protocol.variant(),
                    "protocol": protocol.resolved(),
                })
            })
            .collect(),
        Listed::Battle => battle().iter().map(serde_json::to_value).collect::<Result<_, _>>()?,
    };
    let text = if args.json {
        format!("{}\n", serde_json::to_string_pretty(&rows)?)
    } else if args.what == Listed::Battle {
        battle_table::markdown(&battle())
    } else {
        rows.iter()
            .filter_map(|row| row["name"].as_str())
            .map(|name| format!("{name}\n"))
            .collect()
    };
    put(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn candidates(args: &List, listed: impl Fn(&Candidate) -> bool) -> Result<Vec<Value>> {
    let all = Candidates::open(&args.own.checkpoints)?;
    let candidates = all.iter().filter(|candidate| listed(candidate));
    if !args.json {
        return Ok(candidates.map(|candidate| json!({"name": candidate.name()})).collect());
    }
    // Any device will do: nothing is computed on it.
    let device = BackendName::ALL.into_iter().find_map(|backend| select(backend).ok());
    let Some(device) = device else {
        anyhow::bail!("this worker was built without a backend")
    };
    let row = |candidate: &Candidate| {
        let (parameters, cost) = candidate.size(&device);
        let skeleton = candidate.skeleton(&device);
        let features: Vec<Value> = skeleton
            .feature_info()
            .into_iter()
            .map(|info| json!({"num_chs": info.num_chs, "reduction": info.reduction, "module": info.module}))
            .collect();
        let checkpoint = &candidate.checkpoint;
        let preprocess = &checkpoint.preprocess;
        json!({
            "name": checkpoint.name,
            "architecture": checkpoint.architecture,
            "family": checkpoint.family,
            "pretraining": checkpoint.pretraining,
            "num_classes": checkpoint.num_classes,
            "num_features": skeleton.num_features(),
            "feature_info": features,
            "parameters": parameters,
            "macs": cost.map(|cost| cost.macs),
            "activations": cost.map(|cost| cost.activations),
            "input_size": preprocess.input_size,
            "mean": preprocess.mean,
            "std": preprocess.std,
            "interpolation": preprocess.interpolation,
            "crop_pct": preprocess.crop_pct,
            "crop_mode": preprocess.crop_mode,
            "license": checkpoint.license,
            "paper": checkpoint.paper,
            "sha256": checkpoint.sha256,
            "sources": checkpoint.sources,
            "file": candidate.file(),
        })
    };
    Ok(candidates.map(row).collect())
}
