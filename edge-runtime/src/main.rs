//! `gantry-edge`: what was typed, what it means, what is done.

mod cli;

use std::{
    io::{self, StdoutLock, Write},
    process::ExitCode,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use clap::Parser;
use cli::{BenchArgs, Cli, Command, InspectArgs, ModelArgs, ServeArgs, run, tables};
use edge_runtime::{
    Code, EdgeError, Engine, Model, bench, inspect, profile, selftest,
    serve::{self, Config, Service, config::Source},
    sustained,
};
use indicatif::{ProgressBar, ProgressStyle};
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    flag,
};

/// Bad input, in all of Gantry's programs; clap uses it for bad arguments too.
const REFUSED: u8 = 2;
/// Slices of a profile.
const PROFILE_RUNS: usize = 50;

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Segment(args) => run::segment(&args),
        Command::Inspect(args) => inspect_model(&args),
        Command::Plan(args) => show_plan(&args),
        Command::Selftest(args) => self_test(&args),
        Command::Bench(args) => bench_model(&args),
        Command::FirstSlice(args) => {
            bench::first_slice(&args.model, &args.engine.options(), args.modality, args.slices).map(|()| true)
        }
        Command::Serve(args) => serve_slices(&args),
        Command::Codes(args) => {
            show(if args.markdown { tables::codes_markdown } else { tables::codes });
            Ok(true)
        }
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(REFUSED),
        Err(error) => {
            complain(&error);
            ExitCode::from(REFUSED)
        }
    }
}

/// An error in words: code, message, what to do.
fn complain(error: &EdgeError) {
    let code: Code = error.code();
    eprintln!("error [{code}]: {error}\n  hint: {}", code.advice());
}

/// Writes to stdout. Who closed the pipe (`| head`) has read enough.
fn show(print: impl FnOnce(&mut StdoutLock<'static>) -> io::Result<()>) {
    match print(&mut io::stdout().lock()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => eprintln!("error: stdout: {error}"),
        _ => {}
    }
}

/// Prints a report as JSON.
fn show_json(report: &impl serde::Serialize) {
    show(|out| {
        serde_json::to_writer_pretty(&mut *out, report)?;
        writeln!(out)
    });
}

/// A bar for long work, on stderr, gone when done.
fn progress_bar(length: usize, what: &str) -> ProgressBar {
    let bar = ProgressBar::new(length as u64).with_message(what.to_string());
    let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {eta}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

/// Says which convolutions do not run in int8 although the file is int8.
fn warn_of_float(model: &Model, engine: &Engine) {
    let layers: Vec<&str> = engine.float_convolutions().map(|layer| layer.name.as_str()).collect();
    if model.is_int8() && !layers.is_empty() {
        let path = model.path.display();
        eprintln!("warning: {path}: on this machine these convolutions do not run in int8: {}", layers.join(", "));
    }
}

fn inspect_model(args: &InspectArgs) -> Result<bool, EdgeError> {
    let model = Model::load(&args.model.model)?;
    let mut engine = args.model.engine.load(&model)?;
    if args.profile {
        return profile_model(args, &model, &mut engine);
    }
    let inspection = inspect::inspect(&model, &engine)?;
    if args.model.json {
        show_json(&inspection)
    } else {
        show(|out| tables::inspection(out, &inspection))
    }
    Ok(true)
}

fn profile_model(args: &InspectArgs, model: &Model, engine: &mut Engine) -> Result<bool, EdgeError> {
    let profile = profile::profile(model, engine, PROFILE_RUNS)?;
    if let Some(path) = &args.roofline {
        std::fs::write(path, profile.svg()).map_err(|source| EdgeError::Output { path: path.clone(), source })?;
    }
    if args.model.json {
        show_json(&profile)
    } else {
        show(|out| tables::profile(out, &profile))
    }
    Ok(true)
}

fn show_plan(args: &ModelArgs) -> Result<bool, EdgeError> {
    let model = Model::load(&args.model)?;
    let plan = inspect::plan(&model, &args.engine.load(&model)?)?;
    if args.json {
        show_json(&plan)
    } else {
        show(|out| tables::plan(out, &plan))
    }
    Ok(true)
}

fn self_test(args: &ModelArgs) -> Result<bool, EdgeError> {
    let model = Model::load(&args.model)?;
    let mut engine = args.engine.load(&model)?;
    warn_of_float(&model, &engine);
    let answers = selftest::answers(&model, &mut engine)?;
    if args.json {
        show_json(&tables::answers_json(&answers))
    } else {
        show(|out| tables::answers(out, &answers))
    }
    // Last, so that the digests are seen whatever they are.
    Ok(answers.iter().all(|answer| answer.pass().unwrap_or(!model.is_int8())))
}

/// Serves until SIGTERM or Ctrl-C; the second one ends at once.
fn serve_slices(args: &ServeArgs) -> Result<bool, EdgeError> {
    let mut config = Config::read(&args.config)?;
    if let Some(path) = &args.replay {
        config.sources = vec![Source::Replay { path: path.clone(), rate: args.rate, times: args.times }];
    }
    if args.check {
        show(|out| out.write_all(config.resolved().as_bytes()));
        return Ok(true);
    }
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        let registered = flag::register_conditional_shutdown(signal, 1, stop.clone())
            .and_then(|_| flag::register(signal, stop.clone()));
        registered.map_err(|error| EdgeError::Usage(format!("signals cannot be caught: {error}")))?;
    }
    end_on_panic();
    let service = Service::open(config, &args.config)?;
    for warning in &service.warnings {
        eprintln!("warning: {warning}");
    }
    eprintln!("serving {}", service.addresses().join(", "));
    let snapshot = service.run(&stop)?;
    if args.json {
        show_json(&snapshot);
    } else {
        show(|out| tables::service(out, &snapshot));
    }
    Ok(true)
}

/// Ends the program where one of the service's own threads panics: what was acknowledged is on disk, and a supervisor starts
/// it again. A panic in a decoder costs only its instance.
fn end_on_panic() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        usual(panic);
        if std::thread::current().name().is_some_and(|name| name.starts_with(serve::THREADS)) {
            std::process::abort();
        }
    }));
}

fn bench_sustained(args: &BenchArgs, length: Duration) -> Result<bool, EdgeError> {
    const PARTS: usize = 1000;
    let bar = progress_bar(PARTS, "steady load");
    let report = sustained::run(&args.model, &args.engine.options(), length, |part| {
        bar.set_position((part * PARTS as f64) as u64);
    });
    bar.finish_and_clear();
    let report = report?;
    if let Some(path) = &args.curve {
        std::fs::write(path, report.svg()).map_err(|source| EdgeError::Output { path: path.clone(), source })?;
    }
    if args.json {
        show_json(&report)
    } else {
        show(|out| tables::sustained(out, &report))
    }
    Ok(true)
}

fn bench_model(args: &BenchArgs) -> Result<bool, EdgeError> {
    if let Some(length) = args.sustained {
        return bench_sustained(args, length);
    }
    let bar = progress_bar(args.runs, "slices per modality");
    let program = std::env::current_exe().ok();
    let report = bench::run(&args.model, &args.engine.options(), args.runs, program.as_deref(), |round| {
        bar.set_position(round as u64)
    });
    bar.finish_and_clear();
    let report = report?;
    if args.json {
        show_json(&report)
    } else {
        show(|out| tables::bench(out, &report))
    }
    Ok(true)
}
