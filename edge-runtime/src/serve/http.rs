//! `/metrics` for Prometheus, `/healthz`, `/readyz` and `/plan` for who runs the device.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use tiny_http::{Header, Method, Request, Response, Server};

use super::{desk::Desk, metrics::Metrics, send::Queues};

/// How long the server waits for a request before it looks whether the service has ended.
const NAP: Duration = Duration::from_millis(200);
/// The loop is alive if it went round within this time.
const ALIVE: Duration = Duration::from_secs(5);

/// A sign of life of the loop.
#[derive(Debug)]
pub struct Pulse {
    start: Instant,
    last_ms: AtomicU64,
}

impl Pulse {
    /// Now.
    pub fn new() -> Self {
        Self { start: Instant::now(), last_ms: AtomicU64::new(0) }
    }

    /// The loop went round.
    pub fn beat(&self) {
        self.last_ms.store(self.start.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// Since it last did.
    pub fn age(&self) -> Duration {
        self.start.elapsed().saturating_sub(Duration::from_millis(self.last_ms.load(Ordering::Relaxed)))
    }
}

/// What the pages show.
pub struct Pages<'a> {
    /// Counts and times.
    pub metrics: &'a Metrics,
    /// What waits to be sent.
    pub queues: &'a Queues,
    /// How much is under way, and whether the service takes more.
    pub desk: &'a Desk,
    /// Of the loop.
    pub pulse: &'a Pulse,
    /// The engine's plan as JSON.
    pub plan: &'a str,
    /// Set when everything else has ended.
    pub ended: &'a AtomicBool,
}

/// Opens the port.
pub fn listen(address: SocketAddr) -> Result<Server, String> {
    Server::http(address).map_err(|error| format!("http = \"{address}\": {error}"))
}

impl Pages<'_> {
    /// Answers until the end.
    pub fn serve(&self, server: &Server) {
        while !self.ended.load(Ordering::Acquire) {
            if let Ok(Some(request)) = server.recv_timeout(NAP) {
                self.answer(request);
            }
        }
    }

    fn answer(&self, request: Request) {
        const TEXT: &str = "text/plain; charset=utf-8";
        const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        let (ready, age) = (!self.desk.stopping(), self.pulse.age());
        let path = request.url().split('?').next().unwrap_or_default();
        let (status, kind, body) = match (request.method(), path) {
            (Method::Get | Method::Head, "/metrics") => {
                (200, OPEN_METRICS, self.metrics.text(ready, self.desk.under_way(), &self.queues.waiting()))
            }
            (Method::Get | Method::Head, "/healthz") if age < ALIVE => (200, TEXT, "ok\n".into()),
            (Method::Get | Method::Head, "/healthz") => {
                (503, TEXT, format!("the loop has not gone round for {:.1} s\n", age.as_secs_f64()))
            }
            (Method::Get | Method::Head, "/readyz") if ready => (200, TEXT, "ready\n".into()),
            (Method::Get | Method::Head, "/readyz") => (503, TEXT, "the service is ending\n".into()),
            (Method::Get | Method::Head, "/plan") => (200, "application/json", self.plan.into()),
            (Method::Get | Method::Head, _) => (404, TEXT, "expected /metrics, /healthz, /readyz or /plan\n".into()),
            _ => (405, TEXT, "expected GET\n".into()),
        };
        let mut response = Response::from_string(body).with_status_code(status);
        if let Ok(header) = Header::from_bytes("Content-Type", kind) {
            response.add_header(header);
        }
        // Who asked may have gone.
        let _ = request.respond(response);
    }
}
