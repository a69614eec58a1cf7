//! The dispatcher: the only one who puts slices into frames. What finds no free frame waits here, and when too much waits,
//! the oldest is dropped: a source is never held up.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, Sender, TryRecvError},
    },
    time::{Duration, Instant},
};

use contract::{Grid, Intake, Intensity, Modality, Plane};

use super::{
    frame::{Fate, Frame, Stamps},
    rings::{Bell, In, Out, put},
    ticket::Ticket,
};

/// How long the dispatcher sleeps at most.
const NAP: Duration = Duration::from_millis(100);
/// Geometries whose tables are kept.
const INTAKES: usize = 32;

/// What sources hand in.
pub enum Item {
    /// A slice.
    Slice(Box<Slice>),
    /// A source has brought its last.
    Closed(u64),
    /// All sources have.
    End,
}

/// A decoded slice that waits for a frame.
pub struct Slice {
    /// Whose.
    pub ticket: Arc<Ticket>,
    /// Canonical `[y][x]`.
    pub raw: Vec<i16>,
    /// Its first byte came.
    pub begun: Instant,
    /// Its last byte was here.
    pub received: Instant,
    /// It was decoded.
    pub decoded: Instant,
}

/// What the collector hears besides frames.
pub enum Event {
    /// A slice that never got a frame.
    Lost(Arc<Ticket>, Fate, Stamps),
    /// A source has ended.
    Closed {
        /// Which.
        source: u64,
        /// Frames that were put into the ring before.
        after: u64,
    },
}

/// What the dispatcher works with.
pub struct Dispatch<'a> {
    /// From the sources.
    pub inbox: Receiver<Item>,
    /// Frames to fill.
    pub free: Out<'a>,
    /// Frames for the loop.
    pub raw: In<'a>,
    /// To the collector.
    pub events: Sender<Event>,
    /// Wakes the dispatcher.
    pub bell: &'a Bell,
    /// Wakes the loop.
    pub next: &'a Bell,
    /// Wakes the collector.
    pub collector: &'a Bell,
    /// Tells the loop that nothing more comes.
    pub ending: &'a AtomicBool,
    /// Tables by geometry.
    pub intakes: Intakes,
    /// Most slices that wait.
    pub backlog: usize,
}

impl Dispatch<'_> {
    /// Dispatches until all sources are gone.
    pub fn run(mut self) {
        self.bell.mine();
        let mut waiting = VecDeque::new();
        let (mut put_in, mut gone) = (0, false);
        while !(gone && waiting.is_empty()) {
            let mut idle = true;
            loop {
                match self.inbox.try_recv() {
                    Err(TryRecvError::Disconnected) | Ok(Item::End) => {
                        gone = true;
                        break;
                    }
                    Ok(item) => {
                        idle = false;
                        waiting.push_back(item);
                        self.shed(&mut waiting);
                    }
                    Err(TryRecvError::Empty) => break,
                }
            }
            while let Some(item) = waiting.pop_front() {
                let slice = match item {
                    Item::Closed(source) => {
                        self.tell(Event::Closed { source, after: put_in });
                        continue;
                    }
                    Item::Slice(slice) => slice,
                    Item::End => continue,
                };
                let Some(frame) = self.free.dequeue() else {
                    waiting.push_front(Item::Slice(slice));
                    break;
                };
                self.fill(frame, *slice);
                put_in += 1;
                idle = false;
            }
            if idle {
                self.bell.wait(NAP);
            }
        }
        self.ending.store(true, Ordering::Release);
        self.next.ring();
    }

    /// Drops the oldest slice if one too many waits.
    fn shed(&self, waiting: &mut VecDeque<Item>) {
        let slices = waiting.iter().filter(|item| matches!(item, Item::Slice(_))).count();
        if slices <= self.backlog {
            return;
        }
        let oldest = waiting.iter().position(|item| matches!(item, Item::Slice(_)));
        if let Some(Item::Slice(slice)) = oldest.and_then(|index| waiting.remove(index)) {
            self.lose(*slice, Fate::Overflow);
        }
    }

    fn fill(&mut self, mut frame: Box<Frame>, slice: Slice) {
        let Slice { ticket, raw, begun, received, decoded } = slice;
        self.intakes.give_back(frame.intake.take());
        frame.intake = self.intakes.take(ticket.modality, ticket.plane);
        frame.modality = ticket.modality;
        // Within what was reserved: the desk refuses larger slices.
        frame.raw.clear();
        frame.raw.extend_from_slice(&raw);
        frame.labels.clear();
        frame.labels.resize(raw.len(), 0);
        frame.fate = Fate::Waiting;
        frame.stamps = Stamps { begun, received, decoded, ..Stamps::at(decoded) };
        frame.ticket = Some(ticket);
        put(&mut self.raw, frame);
        self.next.ring();
    }

    fn lose(&self, slice: Slice, fate: Fate) {
        let stamps = Stamps { begun: slice.begun, received: slice.received, ..Stamps::at(Instant::now()) };
        self.tell(Event::Lost(slice.ticket, fate, stamps));
    }

    fn tell(&self, event: Event) {
        // The collector ends after the dispatcher, so this arrives.
        let _ = self.events.send(event);
        self.collector.ring();
    }
}

/// Tables by modality and geometry; each is in one frame at a time.
pub struct Intakes {
    intensity: Intensity,
    grid: Grid,
    idle: VecDeque<((Modality, Plane), Box<Intake>)>,
}

impl Intakes {
    /// For a model.
    pub const fn new(intensity: Intensity, grid: Grid) -> Self {
        Self { intensity, grid, idle: VecDeque::new() }
    }

    /// One for a geometry; `None` where it is impossible, which the loop reports as failed.
    fn take(&mut self, modality: Modality, plane: Plane) -> Option<Box<Intake>> {
        match self.idle.iter().position(|(key, _)| *key == (modality, plane)) {
            Some(index) => self.idle.remove(index).map(|(_, intake)| intake),
            None => Intake::new(modality, self.intensity, plane, self.grid).ok().map(Box::new),
        }
    }

    fn give_back(&mut self, intake: Option<Box<Intake>>) {
        let Some(intake) = intake else { return };
        let key = (intake.modality(), intake.resampler().plane());
        self.idle.push_back((key, intake));
        if self.idle.len() > INTAKES {
            self.idle.pop_front();
        }
    }
}
