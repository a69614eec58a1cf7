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
    Closed {
        /// Which.
        source: u64,
        /// Whether it ended as it should.
        whole: bool,
    },
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
        /// Whether it ended as it should.
        whole: bool,
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
                    Item::Closed { source, whole } => {
                        self.tell(Event::Closed { source, whole, after: put_in });
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use volume::Geometry;

    use super::*;
    use crate::serve::{
        rings::Ring,
        ticket::{Origin, Ticket},
    };

    const PLANE: Plane = Plane { height: 1, width: 2, row_mm: 1., column_mm: 1. };

    fn slice(z: usize) -> Item {
        let geometry = Arc::new(Geometry::from_codes("LPS", [2, 1, 9], [1.; 3]).unwrap());
        let origin = Origin::Nifti { path: Arc::default(), geometry, z };
        let ticket = Ticket {
            source: 1,
            series: "s".into(),
            modality: Modality::Ct,
            plane: PLANE,
            origin,
            kept: None,
            waiter: None,
        };
        let now = Instant::now();
        let slice = Slice { ticket: Arc::new(ticket), raw: vec![z as i16; 2], begun: now, received: now, decoded: now };
        Item::Slice(Box::new(slice))
    }

    fn z(ticket: &Ticket) -> usize {
        let Origin::Nifti { z, .. } = ticket.origin else { panic!("another slice") };
        z
    }

    /// Two frames that nobody gives back, room for two more slices, and seven slices: the oldest of those that wait go.
    #[test]
    fn the_oldest_waiting_slices_are_dropped_and_a_sources_end_is_told_after_its_slices() {
        let (mut free, mut raw) = (Ring::new(), Ring::new());
        let ((mut free_in, free_out), (raw_in, mut raw_out)) = (free.split(), raw.split());
        (0..2).for_each(|_| put(&mut free_in, Box::new(Frame::new(2, 1, 1))));
        let (to_dispatch, inbox) = mpsc::sync_channel(16);
        let (to_collector, events) = mpsc::channel();
        let (bell, next, collector, ending) =
            (Bell::default(), Bell::default(), Bell::default(), AtomicBool::new(false));
        let dispatch = Dispatch {
            inbox,
            free: free_out,
            raw: raw_in,
            events: to_collector,
            bell: &bell,
            next: &next,
            collector: &collector,
            ending: &ending,
            intakes: Intakes::new(Intensity::default(), Grid { height: 1, width: 1, spacing_mm: 1. }),
            backlog: 2,
        };
        let (mut segmented, mut told) = (vec![], vec![]);
        std::thread::scope(|scope| {
            scope.spawn(|| dispatch.run());
            // Two find frames at once.
            (0..2).for_each(|z| to_dispatch.send(slice(z)).unwrap());
            bell.ring();
            while raw_out.len() < 2 {
                std::thread::yield_now();
            }
            (2..7).for_each(|z| to_dispatch.send(slice(z)).unwrap());
            to_dispatch.send(Item::Closed { source: 1, whole: true }).unwrap();
            to_dispatch.send(Item::End).unwrap();
            bell.ring();
            let dropped: Vec<usize> = events
                .iter()
                .take(3)
                .map(|event| match event {
                    Event::Lost(ticket, Fate::Overflow, _) => z(&ticket),
                    _ => panic!("the end of the source before its slices"),
                })
                .collect();
            assert_eq!(dropped, [2, 3, 4]);
            while segmented.len() < 4 {
                let Some(mut frame) = raw_out.dequeue() else { continue };
                segmented.push(z(&frame.ticket.take().unwrap()));
                assert_eq!(frame.raw, [*segmented.last().unwrap() as i16; 2]);
                put(&mut free_in, frame);
                bell.ring();
            }
            told.extend(events.iter());
        });
        assert_eq!(segmented, [0, 1, 5, 6]);
        assert!(matches!(told[..], [Event::Closed { source: 1, whole: true, after: 4 }]));
        assert!(ending.load(Ordering::Acquire));
    }
}
