//! Destinations: one queue on disk per destination and modality, so that times of sending are known per modality.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use contract::Modality;
use dimse::{
    client::Target,
    queue::{Event, Queue},
};
use serde::Serialize;

use super::{
    config::Destination,
    lines::Lines,
    metrics::{Metrics, Step},
    refusal::Refusal,
    sources::scp::files,
};
use crate::Code;

/// Connecting, and waiting for each answer.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Largest PDU that is taken from a destination: answers are short.
const MAX_PDU_BYTES: u32 = 65_536;

/// All queues.
pub struct Queues(BTreeMap<(String, Modality), Queue>);

/// A destination's line.
#[derive(Serialize)]
struct SendLine<'a> {
    destination: &'a str,
    what: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    reason: &'a str,
}

impl Queues {
    /// Opens them, and begins to send what an earlier run left.
    pub fn open(
        destinations: &[Destination],
        state: &Path,
        metrics: &Arc<Metrics>,
        lines: &Arc<Lines>,
    ) -> Result<Self, String> {
        let mut queues = BTreeMap::new();
        for to in destinations {
            for modality in Modality::ALL {
                let tls = to.tls.as_ref().map(|tls| files(tls).client()).transpose()?;
                let target = Target {
                    address: to.address.clone(),
                    ae_title: to.ae_title.clone(),
                    calling: to.calling.clone(),
                    timeout: TIMEOUT,
                    max_pdu_bytes: MAX_PDU_BYTES,
                    tls,
                };
                let folder = state.join("outgoing").join(format!("{}-{modality}", to.name));
                let (name, metrics, lines) = (to.name.clone(), metrics.clone(), lines.clone());
                let hear = move |event: &Event| report(&name, modality, event, &metrics, &lines);
                let queue = Queue::open(&folder, target, to.queue_mb << 20, hear)
                    .map_err(|error| format!("destination '{}': {}: {error}", to.name, folder.display()))?;
                queues.insert((to.name.clone(), modality), queue);
            }
        }
        Ok(Self(queues))
    }

    /// Puts an object into a queue; it is on disk when this returns.
    pub fn push(&self, destination: &str, modality: Modality, object: &[u8]) -> Result<(), Refusal> {
        let fault = |words: String| Refusal::new(Code::SendQueue, format!("{destination}: {words}"));
        let queue = self.0.get(&(destination.to_owned(), modality)).ok_or_else(|| fault("no such queue".into()))?;
        queue.push(object).map_err(|error| fault(error.to_string()))
    }

    /// Objects that wait, per destination.
    pub fn waiting(&self) -> BTreeMap<String, u64> {
        let mut waiting = BTreeMap::new();
        for ((name, _), queue) in &self.0 {
            *waiting.entry(name.clone()).or_default() += queue.waiting() as u64;
        }
        waiting
    }

    /// Ends all transfers; what waits is sent after the next start.
    pub fn stop(self) {
        // All together: destinations that are away must not be waited for one after the other.
        self.0.values().for_each(Queue::halt);
        for queue in self.0.into_values() {
            queue.stop();
        }
    }
}

fn report(destination: &str, modality: Modality, event: &Event, metrics: &Metrics, lines: &Lines) {
    let (what, code, reason) = match event {
        Event::Sent { took, .. } => {
            metrics.sent();
            metrics.time(modality, Step::Send, *took);
            ("sent", None, "")
        }
        Event::Retry { reason, .. } => ("waits", None, reason.as_str()),
        Event::Refused { reason, .. } => ("refused", Some(Code::SendRefused), reason.as_str()),
        Event::Damaged { reason, .. } => ("damaged", Some(Code::StateDamaged), reason.as_str()),
    };
    if let Some(code) = code {
        metrics.refusal(code);
    }
    lines.write("send", &SendLine { destination, what, code: code.map(Code::name), reason });
}
