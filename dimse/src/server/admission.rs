//! How many connections there are, inside and outside associations, and from where.

use std::{
    collections::{HashMap, VecDeque},
    io,
    net::{IpAddr, Ipv6Addr, Shutdown, SocketAddr, TcpStream},
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::Config;

/// The limits and who counts towards them.
pub(super) struct Admission {
    max_unassociated: usize,
    max_associations: usize,
    max_per_host: usize,
    associations: Mutex<Vec<IpAddr>>,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    next: u64,
    /// Oldest first.
    connections: VecDeque<Connection>,
}

struct Connection {
    id: u64,
    host: IpAddr,
    tcp: TcpStream,
}

impl Waiting {
    /// The oldest connection of the host that has the most: whoever opens many makes way himself.
    fn leave(&mut self) -> Option<Connection> {
        let mut counts = HashMap::new();
        for connection in &self.connections {
            *counts.entry(connection.host).or_insert(0) += 1;
        }
        let most = counts.values().max()?;
        let position = self.connections.iter().position(|connection| counts.get(&connection.host) == Some(most))?;
        self.connections.remove(position)
    }
}

/// Why there is no place for an association.
pub(super) enum Full {
    /// There are this many.
    All(usize),
    /// There are this many of its host.
    Host(usize),
}

impl Admission {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            max_unassociated: config.max_unassociated,
            max_associations: config.max_associations,
            max_per_host: config.max_per_host,
            associations: Mutex::default(),
            waiting: Mutex::default(),
        }
    }

    /// Counts a connection outside an association; if there are too many, closes one of the others.
    pub(super) fn wait(&self, tcp: &TcpStream, from: SocketAddr) -> io::Result<Ticket<'_>> {
        let tcp = tcp.try_clone()?;
        let mut waiting = lock(&self.waiting);
        let id = waiting.next;
        waiting.next += 1;
        while waiting.connections.len() >= self.max_unassociated {
            let Some(leaving) = waiting.leave() else { break };
            // Wakes the thread that reads from it.
            let _ = leaving.tcp.shutdown(Shutdown::Both);
        }
        waiting.connections.push_back(Connection { id, host: host(from), tcp });
        Ok(Ticket { admission: self, id })
    }

    /// Counts an association, if there may be another.
    pub(super) fn associate(&self, from: SocketAddr) -> Result<Slot<'_>, Full> {
        let host = host(from);
        let mut associations = lock(&self.associations);
        if associations.len() >= self.max_associations {
            return Err(Full::All(self.max_associations));
        }
        if associations.iter().filter(|other| **other == host).count() >= self.max_per_host {
            return Err(Full::Host(self.max_per_host));
        }
        associations.push(host);
        Ok(Slot { admission: self, host })
    }
}

/// Who an address belongs to: a host chooses the lower half of an address of IPv6 itself (RFC 4291 2.5.4).
fn host(address: SocketAddr) -> IpAddr {
    match address.ip().to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 64)).into(),
        ip => ip,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A connection outside an association, for as long as it is held.
pub(super) struct Ticket<'a> {
    admission: &'a Admission,
    id: u64,
}

impl Ticket<'_> {
    /// Whether the connection was not closed to make way for another.
    pub(super) fn valid(&self) -> bool {
        lock(&self.admission.waiting).connections.iter().any(|connection| connection.id == self.id)
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        lock(&self.admission.waiting).connections.retain(|connection| connection.id != self.id);
    }
}

/// An association, for as long as it is held.
pub(super) struct Slot<'a> {
    admission: &'a Admission,
    host: IpAddr,
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        let mut associations = lock(&self.admission.associations);
        if let Some(position) = associations.iter().position(|host| *host == self.host) {
            associations.swap_remove(position);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_told_apart() {
        let host = |text: &str| host(text.parse().unwrap());
        assert_eq!(host("10.1.2.3:104"), host("[::ffff:10.1.2.3]:105"));
        assert_ne!(host("10.1.2.3:104"), host("10.1.2.4:104"));
        assert_eq!(host("[2001:db8:1:2::3]:104"), host("[2001:db8:1:2:9:9:9:9]:104"));
        assert_ne!(host("[2001:db8:1:2::3]:104"), host("[2001:db8:1:3::3]:104"));
    }
}
