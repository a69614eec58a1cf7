//! The service beside the scanner: slices in from associations, folders and replays; label maps out as they arrive.
//!
//! ```text
//! sources -> desk -> dispatcher -> [raw ring] -> loop -> [done ring] -> collector -> writer -> files, queues
//!                        ^                                                  |
//!                        +------------------ [free ring] <------------------+
//! ```
//! Sources decode in threads of their own. Between the rings nothing is allocated. Every slice that enters comes out with a
//! label map or a code.

mod book;
mod collector;
pub mod config;
mod desk;
mod dispatch;
mod frame;
mod http;
mod inference;
mod lines;
pub mod metrics;
mod refusal;
mod rings;
mod runs;
mod sched;
mod send;
mod series;
mod sources;
mod spool;
mod ticket;
mod writer;

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use contract::net::Spatial;

pub use config::Config;
pub use metrics::Snapshot;
pub use refusal::Refusal;

use crate::{EdgeError, Engine, Model, engine, inspect, kernels::Kernels, selftest};
use collector::Collector;
use config::{Sink, Source};
use desk::Desk;
use dispatch::{Dispatch, Intakes, Item};
use frame::Frame;
use http::{Pages, Pulse};
use inference::Loop;
use lines::Lines;
use metrics::Metrics;
use rings::{Bell, Ring, put};
use send::Queues;
use sources::{Reception, folder, replay, scp};
use spool::Spool;
use writer::{Network, Writer};

/// Names of the service's own threads begin with this. A panic in one of them would leave the others waiting: the program
/// should end then, and start again.
pub const THREADS: &str = "gantry-";
/// How often the service looks whether it should end.
const LOOK: Duration = Duration::from_millis(20);
/// Places of the inbox besides those for slices that may wait.
const SPARE: usize = 64;

/// A service whose every part is open: what can be refused at the start has been.
pub struct Service {
    config: Config,
    model: Model,
    engine: Engine,
    spool: Spool,
    left: Vec<spool::Kept>,
    queues: Queues,
    metrics: Arc<Metrics>,
    lines: Arc<Lines>,
    http: Option<tiny_http::Server>,
    receivers: Vec<scp::Receiver>,
    /// What a person should know before slices come.
    pub warnings: Vec<String>,
}

impl Service {
    /// Loads and tests the model, and opens folders, ports and queues.
    ///
    /// # Errors
    /// Whatever of that fails, with the key of the configuration where it comes from there.
    pub fn open(config: Config, path: &Path) -> Result<Self, EdgeError> {
        let fault = |reason: String| EdgeError::Config { path: path.to_path_buf(), reason };
        let model = Model::load(&config.model)?;
        let spec = model.spec();
        if spec.net.spatial == Spatial::D3 || spec.slices() != 1 {
            let expected = "a 2D network of one slice per image, because slices are segmented as they arrive";
            return Err(EdgeError::Spatial { name: spec.net.name.clone(), expected });
        }
        let mut engine = Engine::with(&model, &options(&config).map_err(fault)?)?;
        selftest::demand(&model, &mut engine)?;
        let mut warnings = vec![];
        if let Engine::Tract { why, .. } = &engine {
            warnings.push(format!("tract runs the network and allocates for every slice ({why})"));
        }
        let state = |source| EdgeError::State { path: config.state.clone(), source };
        let (spool, left) = Spool::open(&config.state.join("received")).map_err(state)?;
        if !left.is_empty() {
            warnings.push(format!("{} instances of an earlier run are segmented again", left.len()));
        }
        let metrics = Arc::new(Metrics::default());
        let paths = config.sinks.iter().filter_map(|sink| match sink {
            Sink::Lines { path } => Some(path.as_path()),
            _ => None,
        });
        let lines = Lines::open(paths).map_err(|(path, source)| EdgeError::Output { path: path.into(), source })?;
        let lines = Arc::new(lines);
        let queues = Queues::open(&config.destinations, &config.state, &metrics, &lines).map_err(fault)?;
        let http = config.http.map(http::listen).transpose().map_err(fault)?;
        let receivers = config.sources.iter().filter_map(|source| match source {
            Source::Scp(scp) => Some(scp::Receiver::open(scp).map_err(fault)),
            Source::Folder { .. } | Source::Replay { .. } => None,
        });
        let receivers = receivers.collect::<Result<_, _>>()?;
        Ok(Self { config, model, engine, spool, left, queues, metrics, lines, http, receivers, warnings })
    }

    /// Where the receivers and the pages listen; the system chooses where the configuration says port 0.
    pub fn addresses(&self) -> Vec<String> {
        let receivers = self.receivers.iter().map(scp::Receiver::address);
        let pages = self.http.iter().map(|http| format!("http://{}", http.server_addr()));
        receivers.chain(pages).collect()
    }

    /// Serves until `stop` is set, or until everything is played if there are only replays: then what has arrived is
    /// finished, series are written, and all threads end.
    pub fn run(self, stop: &AtomicBool) -> Result<Snapshot, EdgeError> {
        let Self { config, model, mut engine, spool, left, queues, metrics, lines, http, receivers, .. } = self;
        let spec = model.spec();
        let plan = inspect::plan(&model, &engine).ok();
        let plan = plan.map_or_else(|| "{}".into(), |plan| serde_json::to_string_pretty(&plan).unwrap_or_default());
        let (image, grid_labels) = (engine.image_len(), engine.labels_len());
        let (mut free, mut raw, mut done) = (Ring::new(), Ring::new(), Ring::new());
        let ((mut free_in, free_out), (raw_in, raw_out), (done_in, done_out)) =
            (free.split(), raw.split(), done.split());
        for _ in 0..config.slices.frames {
            put(&mut free_in, Box::new(Frame::new(config.slices.max_pixels, image, grid_labels)));
        }
        let (dispatcher, looper, collecting) = (Arc::new(Bell::default()), Bell::default(), Bell::default());
        let (to_desk, inbox) = mpsc::sync_channel(config.slices.backlog + SPARE);
        let (to_collector, events) = mpsc::channel();
        let (to_writer, jobs) = mpsc::channel();
        let behind = AtomicUsize::new(0);
        let desk = Desk::new(&config, spec, to_desk.clone(), dispatcher.clone());
        let (no_more, loop_ended, ended) = (AtomicBool::new(false), AtomicBool::new(false), AtomicBool::new(false));
        let pulse = Pulse::new();
        let reception = Reception { desk: &desk, metrics: &metrics, lines: &lines };
        let wants = |kind: fn(&Sink) -> bool| config.sinks.iter().any(kind);

        let dispatch = Dispatch {
            inbox,
            free: free_out,
            raw: raw_in,
            events: to_collector,
            bell: &dispatcher,
            next: &looper,
            collector: &collecting,
            ending: &no_more,
            intakes: Intakes::new(spec.intensity, spec.grid),
            backlog: config.slices.backlog,
        };
        let collector = Collector {
            done: done_out,
            free: free_in,
            events,
            jobs: to_writer,
            behind: &behind,
            bell: &collecting,
            dispatcher: &dispatcher,
            ending: &loop_ended,
            desk: &desk,
            metrics: &metrics,
            lines: &lines,
            labels: &spec.labels,
            config: &config.series,
            late: config.slices.late,
            single_slices: wants(|sink| matches!(sink, Sink::Png { .. } | Sink::Seg { per_slice: true, .. })),
            panels: wants(|sink| matches!(sink, Sink::Capture { .. })),
        };
        let network = Network { name: spec.net.name.clone(), version: model.sha256.chars().take(12).collect() };
        let writer = Writer {
            jobs,
            behind: &behind,
            sinks: &config.sinks,
            queues: &queues,
            labels: &spec.labels,
            network,
            incomplete: config.series.incomplete,
            metrics: &metrics,
            lines: &lines,
        };
        let pages =
            Pages { metrics: &metrics, queues: &queues, desk: &desk, pulse: &pulse, plan: &plan, ended: &ended };

        thread::scope(|scope| {
            let looping = spawn(scope, "loop", || {
                if let Err(words) = sched::apply(config.slices.sched) {
                    lines.write("warning", &BTreeMap::from([("reason", &words)]));
                    eprintln!("warning: slices.sched: {words}");
                }
                Loop {
                    engine: &mut engine,
                    raw: raw_out,
                    done: done_in,
                    bell: &looper,
                    next: &collecting,
                    ending: &no_more,
                    pulse: &pulse,
                    deadline: config.slices.deadline(),
                    late: config.slices.late,
                }
                .run();
                loop_ended.store(true, Ordering::Release);
                collecting.ring();
            });
            spawn(scope, "dispatch", || {
                // It feeds the loop, so it must not wait for others either; if that is not permitted, the loop says so.
                let _ = sched::apply(config::Sched { cpu: None, ..config.slices.sched });
                dispatch.run();
            });
            let collecting = spawn(scope, "collect", || collector.run());
            let writing = spawn(scope, "write", || writer.run());
            if let Some(http) = &http {
                spawn(scope, "http", || pages.serve(http));
            }

            let damaged = config.state.join("damaged");
            let mut finite = vec![scope.spawn(move || reception.recover(left, &damaged))];
            let mut endless = vec![];
            for source in &config.sources {
                match source {
                    Source::Scp(_) => {}
                    Source::Folder { path, nifti_modality, settle_ms, after } => endless.push(scope.spawn(move || {
                        folder::watch(reception, path, *nifti_modality, Duration::from_millis(*settle_ms), *after);
                    })),
                    Source::Replay { path, rate, times } => {
                        finite.push(scope.spawn(move || replay::play(reception, path, *rate, *times)));
                    }
                }
            }
            let only_finite = endless.is_empty() && receivers.is_empty();
            scp::serve(receivers, reception, &spool, || {
                let played = || only_finite && finite.iter().all(|play| play.is_finished());
                while !(stop.load(Ordering::Acquire) || played()) {
                    thread::sleep(LOOK);
                }
                desk.stop();
            });
            finite.into_iter().chain(endless).for_each(join);
            // All sources have ended, so this is the last.
            let _ = to_desk.send(Item::End);
            dispatcher.ring();
            join(looping);
            join(collecting);
            join(writing);
            ended.store(true, Ordering::Release);
        });
        queues.stop();
        lines.flush();
        Ok(metrics.snapshot())
    }
}

/// Starts a thread with a name that `top -H` shows, and that tells our own threads from those that run other people's
/// decoders.
fn spawn<'scope, 'env>(
    scope: &'scope thread::Scope<'scope, 'env>,
    name: &str,
    work: impl FnOnce() + Send + 'scope,
) -> thread::ScopedJoinHandle<'scope, ()> {
    let builder = thread::Builder::new().name(format!("{THREADS}{name}"));
    builder.spawn_scoped(scope, work).expect("the system starts a thread")
}

/// A thread's panic is a fault of ours: it goes on in the thread that waits.
fn join(thread: thread::ScopedJoinHandle<'_, ()>) {
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn options(config: &Config) -> Result<engine::Options, String> {
    let named = |name: &String| {
        let names = || Kernels::available().iter().map(Kernels::name).collect::<Vec<_>>().join(", ");
        Kernels::named(name).ok_or_else(|| format!("engine.kernel = \"{name}\": this CPU can run {}", names()))
    };
    Ok(engine::Options {
        choice: engine::Choice::Auto,
        kernels: config.engine.kernel.as_ref().map(named).transpose()?,
        max_arena_bytes: config.engine.max_arena_mb.saturating_mul(1 << 20),
        threads: config.engine.threads,
        cores: config.engine.cores.clone(),
    })
}
