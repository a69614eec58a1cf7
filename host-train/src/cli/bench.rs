//! `gantry-train bench`: steps on random batches, timed or compared with the processor's.

use std::io::{BufRead, Write};

use anyhow::{Context, bail, ensure};
use clap::{Args, Parser};
use host_train::{
    device,
    throughput::{self, Bench},
    trainer::{Amp, Settings},
};
use serde_json::json;
use tch::Device;

use super::options;

/// Options of `bench`.
#[derive(Args)]
#[command(after_help = EXAMPLE)]
pub struct Arguments {
    /// Timed steps
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..))]
    steps: u16,
    /// Steps before them that are not timed
    #[arg(long, value_name = "N", default_value_t = 3)]
    warm_up: u16,
    /// Instead of timing, take the steps on the processor in f32 as well, and fail if a loss differs by more than 1e-3
    #[arg(long)]
    compare: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Answer lines on standard input, `run N` and `end`, with JSON (for benches/peers/train.py)
    #[arg(long, hide = true)]
    serve: bool,
    /// Options of `gantry-train train`, except those that name data
    #[arg(last = true, value_name = "TRAIN OPTIONS")]
    train: Vec<String>,
}

const EXAMPLE: &str = "\
Examples:
  gantry-train bench -- --net compact --batch 8
  gantry-train bench -- --net dilated2d --width 4 --size 128 --threads 2
  gantry-train bench -- --net dilated2d --size 256 --device cuda --amp bf16
  gantry-train bench --compare -- --device cuda     # does CUDA take the processor's steps?";

/// Above this, two devices do not compute the same loss.
const TOLERANCE: f64 = 1e-3;

/// What is timed.
#[derive(Parser)]
#[command(name = "gantry-train bench --", no_binary_name = true)]
struct Train {
    #[command(flatten)]
    options: options::Arguments,
}

/// Times or compares.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let nowhere = ["--ct", "-", "--mr", "-", "--out", "-"].map(String::from);
    let Train { options } = Train::parse_from(nowhere.into_iter().chain(arguments.train.iter().cloned()));
    if let Some(threads) = options.threads {
        tch::set_num_threads(threads.into());
    }
    let (settings, device, amp) = (options.settings()?, options.device.choose()?, options.amp);
    device::set_precision(device, amp)?;
    if arguments.compare {
        return compare(settings, device, amp, arguments.steps);
    }
    let mut bench = Bench::new(settings.clone(), device, amp)?;
    if arguments.serve {
        return serve(&mut bench, &settings, arguments.warm_up);
    }
    bench.run(arguments.warm_up.into());
    let mut times = bench.run(arguments.steps.into());
    times.sort_by(f64::total_cmp);
    let (median, samples) = (times[times.len() / 2], 2 * settings.batch);
    let per_second = samples as f64 / median * 1e3;
    if arguments.json {
        println!(
            "{}",
            json!({
                "net": settings.spec.net.name, "topology": settings.topology.name(), "size": settings.spec.net.input.size,
                "batch": settings.batch, "device": format!("{device:?}"), "amp": amp.name(),
                "threads": tch::get_num_threads(), "ms": times, "median_ms": median, "samples_per_s": per_second,
            })
        );
    } else {
        println!(
            "{} {:?}, {} + {} samples a step, {device:?}, {}: median {median:.1} ms of {} steps ({:.1} to {:.1}), {per_second:.1} samples/s",
            settings.spec.net.name,
            settings.spec.net.input.size,
            settings.batch,
            settings.batch,
            amp.name(),
            times.len(),
            times[0],
            times[times.len() - 1],
        );
    }
    Ok(())
}

fn compare(settings: Settings, device: Device, amp: Amp, steps: u16) -> anyhow::Result<()> {
    let found = throughput::difference(settings, device, amp, steps.into())?;
    println!(
        "{steps} steps on {device:?} ({}) and on the processor in f32: losses differ by at most {found:.2e}",
        amp.name()
    );
    ensure!(found <= TOLERANCE, "{found:.2e} is more than {TOLERANCE:.0e}");
    Ok(())
}

/// The protocol of benches/peers/worker.py.
fn serve(bench: &mut Bench, settings: &Settings, warm_up: u16) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    let (objective, counts) = (settings.objective, settings.spec.net.counts()?);
    let weights = counts.shared + counts.norm_per_modality;
    writeln!(
        out,
        "{}",
        json!({"net": settings.spec.net, "batch": settings.batch, "objective": objective, "weights": weights, "rate": settings.rate})
    )?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        match line.split_once(' ') {
            Some(("run", count)) => {
                bench.run(warm_up.into());
                let count = count.trim().parse().with_context(|| format!("'{line}': expected run N"))?;
                writeln!(out, "{}", json!({"wall_ms": bench.run(count)}))?;
            }
            _ if line.trim() == "end" => break,
            _ => bail!("'{line}': expected run N, or end"),
        }
    }
    Ok(())
}
