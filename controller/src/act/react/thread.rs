//! The loop of the reaction thread.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};

use plimsoll_policy::plan::Act;
use plimsoll_policy::sample::Trigger;
use plimsoll_policy::units::{Bytes, Monotonic, Span};
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventFlags};

use super::operation::{self, Begun, REAPED, Why};
use super::watched::{Source, Table, Watched};
use super::{Look, Order, StandingTarget};
use crate::act::mail::{End, Ended, Mail, Message};
use crate::act::ring;
use crate::act::worker::Job;
use crate::ledger::Ledger;
use crate::sense::clock::now;
use crate::sense::probes::Ring;

/// How long the effect of a reflex is waited for.
const REFLEX: Look = Look { enough: None, deadline: Span::millis(500) };

pub(super) struct Reactor {
    epoll: OwnedFd,
    orders: Receiver<Order>,
    bell: Arc<OwnedFd>,
    mail: Mail,
    jobs: SyncSender<Job>,
    ledger: Arc<Ledger>,
    ring: Option<Ring>,
    table: Table,
    host_psi: Option<OwnedFd>,
    standing: Vec<StandingTarget>,
    meminfo: File,
    pidfds: Vec<OwnedFd>,
}

impl Reactor {
    pub(super) fn new(
        orders: Receiver<Order>,
        bell: Arc<OwnedFd>,
        mail: Mail,
        jobs: SyncSender<Job>,
        ledger: Arc<Ledger>,
        ring: Option<Ring>,
    ) -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &*bell, Source::Orders.token(0), EventFlags::IN)?;
        if let Some(ring) = &ring {
            epoll::add(&epoll, ring.as_fd(), Source::Ring.token(0), EventFlags::IN)?;
        }
        Ok(Self {
            epoll,
            orders,
            bell,
            mail,
            jobs,
            ledger,
            ring,
            table: Table::new(),
            host_psi: None,
            standing: Vec::new(),
            meminfo: File::open("/proc/meminfo")?,
            pidfds: Vec::with_capacity(REAPED),
        })
    }

    pub(super) fn run(mut self) {
        let mut events = Vec::with_capacity(64);
        loop {
            let timeout = self.timeout();
            // EINTR and the like: the next round waits again.
            let _ = epoll::wait(&self.epoll, spare_capacity(&mut events), timeout.as_ref());
            for event in events.drain(..) {
                if self.on_event(event) == Flow::Stop {
                    return;
                }
            }
            self.check_operations();
        }
    }

    /// Until the next deadline of an operation, and for `frozen 1` a look every few milliseconds, since the kernel
    /// holds notifications of one file back for 10 ms.
    fn timeout(&self) -> Option<Timespec> {
        let now = now();
        let next = self.table.operations().map(|operation| operation.deadline.since(now)).min()?;
        let nanos = next.min(Span::millis(4)).0;
        Some(Timespec { tv_sec: 0, tv_nsec: i64::try_from(nanos).expect("at most 4 ms") })
    }

    fn on_event(&mut self, event: Event) -> Flow {
        let Some((source, row)) = Source::of(event.data) else { return Flow::Go };
        let flags = event.flags;
        let error = flags.contains(EventFlags::ERR);
        match source {
            Source::Orders => return self.take_orders(),
            Source::Ring => self.read_ring(),
            Source::HostPsi if error => self.host_psi = None,
            Source::Psi if error => self.table.drop_psi(row),
            Source::HostPsi | Source::Psi => self.mail.post(Message::Woke(Trigger::Psi)),
            Source::State | Source::MemoryEvents => self.on_cgroup_file(source, row),
        }
        Flow::Go
    }

    /// kernfs raises EPOLLERR together with every EPOLLPRI, so whether the cgroup is gone is seen by reading.
    fn on_cgroup_file(&mut self, source: Source, row: usize) {
        let gone = self.table.row(row).is_some_and(|watched| watched.cgroup.state().is_err());
        if gone {
            self.table.silence(&self.epoll, row, source);
            self.mail.post(Message::Woke(Trigger::Workloads));
        } else {
            self.mail.post(Message::Woke(Trigger::Events));
        }
    }

    fn take_orders(&mut self) -> Flow {
        let _ = rustix::io::read(&*self.bell, &mut [0; 8]);
        while let Ok(order) = self.orders.try_recv() {
            match order {
                Order::Watch { cgroup, slot, psi } => {
                    self.table.add(&self.epoll, Watched { cgroup, slot, psi, operation: None });
                }
                Order::Forget(inode) => self.table.remove(&self.epoll, inode),
                Order::HostPsi(fd) => {
                    let _ = epoll::add(&self.epoll, &fd, Source::HostPsi.token(0), EventFlags::PRI);
                    self.host_psi = Some(fd);
                }
                Order::Standing(targets) => self.standing = targets,
                Order::Freeze(inode, look) => self.freeze(inode, look, Why::Plan),
                Order::Thaw(inode) => self.thaw(inode),
                Order::Kill(inode, look) => self.kill(inode, look),
                Order::Stop => return Flow::Stop,
            }
        }
        Flow::Go
    }

    fn read_ring(&mut self) {
        while let Some(event) = self.ring.as_mut().and_then(Ring::next) {
            if let Some(message) = ring::message(&event) {
                self.mail.post(message);
            }
            if let Some((id, at)) = ring::stopped(&event) {
                self.on_gate_stop(id, at);
            }
        }
    }

    /// The standing order: what the gate stopped is frozen, which holds without a signal that anybody could undo.
    fn on_gate_stop(&mut self, id: u64, at: Monotonic) {
        let target = self.standing.iter().find(|target| target.ids.contains(&id)).map(|target| target.inode);
        if let Some(inode) = target {
            self.mail.post(Message::GateStopped { inode, at });
            self.freeze(inode, REFLEX, Why::Gate);
        }
    }

    fn freeze(&mut self, inode: u64, look: Look, why: Why) {
        if why == Why::Plan && self.enough(look) {
            return self.withdrawn(inode, Act::Freeze);
        }
        let ledger = Arc::clone(&self.ledger);
        let Some(watched) = self.table.find(inode).and_then(|row| self.table.row(row)) else {
            return self.gone(inode, Act::Freeze);
        };
        if watched.operation.is_some() {
            return;
        }
        match operation::freeze(watched, &ledger, look, why) {
            Begun::Waits(operation) => watched.operation = Some(operation),
            Begun::Over(ended) => self.mail.post(Message::Ended(ended)),
        }
    }

    fn thaw(&mut self, inode: u64) {
        let ledger = Arc::clone(&self.ledger);
        let Some(watched) = self.table.find(inode).and_then(|row| self.table.row(row)) else {
            return self.gone(inode, Act::Thaw);
        };
        // A freeze that was still waiting is taken back by this.
        if watched.operation.as_ref().is_some_and(|operation| operation.act == Act::Freeze) {
            watched.operation = None;
        }
        let ended = operation::thaw(watched, &ledger);
        self.mail.post(Message::Ended(ended));
    }

    fn kill(&mut self, inode: u64, look: Look) {
        if self.enough(look) {
            return self.withdrawn(inode, Act::Kill);
        }
        let pidfds = &mut self.pidfds;
        let Some(watched) = self.table.find(inode).and_then(|row| self.table.row(row)) else {
            return self.gone(inode, Act::Kill);
        };
        match operation::kill(watched, look, pidfds) {
            Begun::Waits(operation) => watched.operation = Some(operation),
            Begun::Over(ended) => self.mail.post(Message::Ended(ended)),
        }
        // Freeing the memory is a worker's task: it takes as long as there is memory to free.
        let reaped = std::mem::replace(&mut self.pidfds, Vec::with_capacity(REAPED));
        let _ = self.jobs.try_send(Job::Reap(reaped));
    }

    /// The second look: is there enough by now, so that the action is needless?
    fn enough(&self, look: Look) -> bool {
        let Some(enough) = look.enough else { return false };
        available(&self.meminfo).is_some_and(|available| available >= enough)
    }

    fn withdrawn(&self, inode: u64, act: Act) {
        self.end(inode, act, End::Withdrawn);
    }

    fn gone(&self, inode: u64, act: Act) {
        self.end(inode, act, End::Gone);
    }

    fn end(&self, inode: u64, act: Act, end: End) {
        let begun = now();
        let ended = Ended { inode, act, end, begun, took: Span::ZERO, freed: None };
        self.mail.post(Message::Ended(ended));
    }

    fn check_operations(&mut self) {
        for row in 0..self.table.len() {
            let Some(watched) = self.table.row(row) else { continue };
            let Some(operation) = &watched.operation else { continue };
            let Some(end) = operation::progress(operation, &watched.cgroup) else { continue };
            let ended = operation.ended(&watched.cgroup, end);
            watched.operation = None;
            self.mail.post(Message::Ended(ended));
        }
    }
}

/// Whether the loop goes on.
#[derive(PartialEq, Eq)]
enum Flow {
    Go,
    Stop,
}

/// `MemAvailable` without allocation.
fn available(meminfo: &File) -> Option<Bytes> {
    let mut buffer = [0_u8; 512];
    let len = rustix::io::pread(meminfo, &mut buffer, 0).ok()?;
    let text = std::str::from_utf8(&buffer[..len]).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(Bytes(kib << 10))
}

/// SCHED_FIFO above the kernel's own `psimon` threads (priority 1), below everything that matters more than us.
pub(super) fn real_time() -> Result<(), String> {
    let parameters = libc::sched_param { sched_priority: 2 };
    // SAFETY: pid 0 is the calling thread, and the parameters outlive the call.
    let result = unsafe {
        libc::sched_setscheduler(0, libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, &raw const parameters)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error().to_string()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memavailable_is_read() {
        assert!(available(&File::open("/proc/meminfo").unwrap()).unwrap() > Bytes::mib(1));
    }
}
