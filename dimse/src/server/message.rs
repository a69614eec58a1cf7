//! A message as it arrives (PS3.7 6.3, PS3.8 annex E): its command set in fragments, then, if there is one, its data set.

use std::time::{Duration, Instant};

use dicom_ul::pdu::{AbortRQServiceProviderReason as Reason, PDataValue, PDataValueType};

use super::{Config, budget::Share, stream::Closing};
use crate::{
    command::{Command, DATA_SET_TYPE, FIELD, NO_DATA_SET},
    wire::{Halt, after},
};

/// C-STORE-RQ (PS3.7 E.1).
pub(super) const C_STORE_RQ: u16 = 0x0001;

/// The longest command set, bytes; those of C-STORE and C-ECHO have some 300.
const MAX_COMMAND: usize = 16 << 10;

/// What twice the idle time must bring of a message, bytes. A modem does; a client that only wants to hold its place does not.
const PROGRESS: usize = 256 << 10;

/// What a message needs until it is complete.
pub(super) struct Message<'a> {
    /// ID of its presentation context.
    pub(super) context: u8,
    /// When its first byte had arrived.
    pub(super) begun: Instant,
    bytes: Vec<u8>,
    /// Once it is complete.
    pub(super) command: Option<Command>,
    /// Of a C-STORE.
    pub(super) data: Vec<u8>,
    /// The memory of `data`.
    pub(super) share: Share<'a>,
    /// Why the data set is thrown away, if it is.
    pub(super) lost: Option<String>,
    stretch: Instant,
    brought: usize,
}

impl<'a> Message<'a> {
    pub(super) fn new(context: u8, begun: Instant, share: Share<'a>) -> Self {
        let (bytes, data) = (Vec::new(), Vec::new());
        Self { context, begun, bytes, command: None, data, share, lost: None, stretch: begun, brought: 0 }
    }

    /// Until when the next part of it must have come, however short its pauses are.
    pub(super) fn until(&self, idle: Duration) -> Instant {
        after(self.stretch, idle.saturating_mul(2))
    }

    /// Adds a fragment; says whether the message is complete.
    pub(super) fn add(&mut self, value: PDataValue, config: &Config, halt: &Halt) -> Result<bool, Closing> {
        let out_of_order = |what: String| Closing::protocol(Reason::UnexpectedPduParameter, what);
        self.brought += value.data.len();
        if self.brought >= PROGRESS {
            (self.stretch, self.brought) = (Instant::now(), 0);
        }
        match (value.value_type, &self.command) {
            (PDataValueType::Command, Some(_)) => {
                Err(out_of_order("a command where a data set was to follow".to_owned()))
            }
            (PDataValueType::Command, None) => {
                if self.bytes.len() + value.data.len() > MAX_COMMAND {
                    return Err(out_of_order(format!("a command set of more than {MAX_COMMAND} bytes")));
                }
                self.bytes.extend(value.data);
                if value.is_last { self.commanded() } else { Ok(false) }
            }
            (PDataValueType::Data, None) => Err(out_of_order("a data set without a command".to_owned())),
            (PDataValueType::Data, Some(command)) => {
                if command.number(FIELD) == Some(C_STORE_RQ) && self.lost.is_none() {
                    self.keep(&value.data, config, halt);
                }
                Ok(value.is_last)
            }
        }
    }

    /// The command is complete; says whether the message is.
    fn commanded(&mut self) -> Result<bool, Closing> {
        let invalid = |what: String| Closing::protocol(Reason::InvalidPduParameter, what);
        let command = Command::parse(&std::mem::take(&mut self.bytes)).map_err(invalid)?;
        let kind = command.number(DATA_SET_TYPE);
        self.command = Some(command);
        kind.map(|kind| kind == NO_DATA_SET)
            .ok_or_else(|| invalid("a command set without a command data set type".to_owned()))
    }

    fn keep(&mut self, data: &[u8], config: &Config, halt: &Halt) {
        let (length, most) = (self.data.len().saturating_add(data.len()), config.max_instance_bytes);
        if length > most {
            return self.lose(format!("the data set has more than {most} bytes"));
        }
        if length > self.data.capacity() {
            let deadline = after(Instant::now(), config.idle);
            let capacity = self.share.reserve(length, most, deadline, halt);
            let reserved =
                capacity.is_some_and(|capacity| self.data.try_reserve_exact(capacity - self.data.len()).is_ok());
            if !reserved {
                return self.lose("no memory for it now: other instances are arriving".to_owned());
            }
            // The client could not go on while we waited.
            (self.stretch, self.brought) = (Instant::now(), 0);
        }
        self.data.extend_from_slice(data);
    }

    fn lose(&mut self, why: String) {
        self.lost = Some(why);
        self.data = Vec::new();
        self.share.clear();
    }
}
