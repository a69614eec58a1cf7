//! stub
use super::Reception;
use crate::serve::{config::{Destination, Scp}, metrics::Metrics, spool::Spool, dimse::queue::Queue};
use std::{path::Path, sync::Arc};
pub struct Receiver;
impl Receiver {
    pub fn open(_: &Scp) -> Result<Self, String> { Ok(Self) }
    pub fn address(&self) -> String { String::new() }
}
pub fn queue(_: &Destination, _: &Path, _: &Arc<Metrics>) -> Result<Queue, String> { Ok(Queue) }
pub fn serve(_: Vec<Receiver>, _: Reception<'_>, _: &Spool, wait: impl FnOnce()) { wait() }
