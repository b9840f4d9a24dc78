// SPDX-License-Identifier: GPL-2.0

//! Durability: a flush of the region makes earlier writes durable.
//!
//! Writes bypass the CPU caches, but may still be in the buffers between the CPU and the memory. A
//! flush fences them and drains these buffers by flush hints (NFIT flush hint address structures,
//! ACPI 6.5, 5.2.25.9), which is cheap.
//!
//! On virtio-pmem a flush asks the host for an fsync, and the provider serves one request after the
//! other. There requests share flushes: see [`Group`].

#![forbid(unsafe_code)]

use crate::abstractions::{
    block::{
        Bio,
        BioList,
        DiskName, //
    },
    flag::Flag,
    nd::Region,
    reclaim,
    scope::{
        Scope,
        Scoped, //
    },
    suspend::{
        PmNotifier,
        SuspendHandler, //
    },
    timer::{
        SlowHandler,
        Watchdog, //
    },
    work::{
        Job,
        Queue,
        Work, //
    }, //
};
use kernel::{
    device::Device,
    prelude::*,
    sync::{
        aref::ARef,
        new_condvar,
        new_mutex,
        Arc,
        CondVar,
        Mutex, //
    },
    time::Delta, //
};

/// How long a flush waits for the host before that is logged: the I/O timeout of NVMe.
const SLOW: Delta = Delta::from_secs(30);

/// The flush of a namespace's region.
#[derive(Clone)]
pub(crate) struct Flush<'bound> {
    region: &'bound Region,
    /// Requests that share flushes, where a flush waits for the host.
    shared: Option<Arc<Shared<'bound>>>,
}

/// Shared flushes, and the work item that starts them for bios that no thread waits for.
struct Shared<'bound> {
    work: Scoped<'bound, Work<Group<'bound>>>,
    _notifier: Scoped<'bound, PmNotifier<Group<'bound>>>,
    group: Arc<Group<'bound>>,
}

impl<'bound> Flush<'bound> {
    /// Creates the flush of `region`; requests do not share flushes.
    pub(crate) fn new(region: &'bound Region) -> Self {
        Self {
            region,
            shared: None,
        }
    }

    /// Creates the flush of `region`; requests share flushes if these wait for the host. Slow
    /// flushes are logged for `dev` and the disk. [`ENOMEM`].
    pub(crate) fn for_disk(
        region: &'bound Region,
        dev: &Device,
        disk: DiskName,
        scope: &'bound Scope<'bound>,
    ) -> Result<Self> {
        let mut this = Self::new(region);

        if this.waits() {
            let watchdog = Watchdog::new(SlowFlush::new(dev, disk))?;
            let group = Arc::pin_init(Group::new(region, watchdog), GFP_KERNEL)?;
            // Writeback waits for FUA bios of a file system's journal.
            let queue = Queue::for_reclaim(c"rust_pmem-flush")?;
            let work = Work::new(group.clone(), queue, scope)?;

            let shared = Shared {
                work,
                _notifier: PmNotifier::new(group.clone(), scope)?,
                group,
            };

            this.shared = Some(Arc::new(shared, GFP_KERNEL)?);
        }
        Ok(this)
    }

    /// Makes all earlier writes durable. Sleeps where a flush waits for the host.
    #[inline]
    pub(crate) fn now(&self) -> Result {
        match &self.shared {
            None => self.region.flush(),
            Some(shared) => shared.group.flush(),
        }
    }

    /// Returns whether a flush has to wait for the host.
    fn waits(&self) -> bool {
        !self.region.is_synchronous()
    }

    /// Makes all earlier writes durable, then ends the bio: in the background where a flush waits
    /// for the host.
    pub(crate) fn then_end(&self, bio: Bio<'_>) {
        let alone = match &self.shared {
            None => bio,
            Some(shared) => match shared.group.add(bio) {
                Ok(()) => return shared.work.schedule(),
                Err(bio) => bio,
            },
        };

        self.region.flush_then_end(alone);
    }
}

/// Flushes the region when dropped, after its last user is gone.
pub(crate) struct LastFlush<'bound> {
    flush: Flush<'bound>,
    dev: &'bound Device,
}

impl<'bound> LastFlush<'bound> {
    pub(crate) fn new(flush: Flush<'bound>, dev: &'bound Device) -> Self {
        Self { flush, dev }
    }

    /// Makes all earlier writes durable. A failure is logged: nobody is left to report it to.
    pub(crate) fn now(&self) {
        if self.flush.now().is_err() {
            dev_warn!(
                self.dev,
                "the last flush failed: what was written since the one before may be lost\n"
            );
        }
    }
}

impl Drop for LastFlush<'_> {
    fn drop(&mut self) {
        self.now();
    }
}

/// Requests that share flushes.
///
/// A request is served by the next flush that *starts* after the request has arrived: one that is
/// under way may have passed the request's data by. So all that arrive during a flush wait for the
/// next one together. Its result is that of each of them, and of no other request. The request that
/// runs first once a flush has ended starts the next one.
///
/// Nothing is allocated here, because writeback may wait for it.
#[pin_data]
struct Group<'bound> {
    region: &'bound Region,
    watchdog: Arc<Watchdog<SlowFlush>>,
    #[pin]
    state: Mutex<State>,
    /// A flush has ended, or the last thread that was in the way of the next one has its result.
    #[pin]
    changed: CondVar,
}

/// The flushes of a [`Group`], which are numbered from 1.
struct State {
    /// The number of the newest flush.
    started: u64,
    /// The same, or the one before while the newest flush is under way.
    ended: u64,
    /// How many threads wait for the next flush.
    waiting: u32,
    /// Bios that the next flush ends.
    bios: BioList,
    /// The system is about to suspend: bios go to the provider, each by itself.
    is_suspending: bool,
    /// The newest flushes, by their numbers: several, because a thread takes its result when it
    /// next runs, and other flushes need not wait for that.
    rounds: [Round; 4],
}

/// The result of a flush.
#[derive(Clone, Copy)]
struct Round {
    /// How many threads have not taken the result yet.
    waiting: u32,
    result: Result,
}

impl State {
    fn new() -> Self {
        let round = Round {
            waiting: 0,
            result: Ok(()),
        };

        Self {
            started: 0,
            ended: 0,
            waiting: 0,
            bios: BioList::new(),
            is_suspending: false,
            rounds: [round; 4],
        }
    }

    /// The round of a flush that is one of the four newest.
    fn round(&mut self, number: u64) -> &mut Round {
        let [first, second, third, fourth] = &mut self.rounds;

        match number % 4 {
            0 => first,
            1 => second,
            2 => third,
            _ => fourth,
        }
    }

    /// Waits for the next flush from now on; returns its number.
    fn join(&mut self) -> u64 {
        // Counts threads: there are fewer than 2^32. Flushes: more than 2^64 take too long.
        self.waiting = self.waiting.wrapping_add(1);
        self.started.wrapping_add(1)
    }

    fn is_under_way(&self) -> bool {
        self.started != self.ended
    }

    fn is_wanted(&self) -> bool {
        self.waiting > 0 || !self.bios.is_empty()
    }

    /// Begins the next flush, if it is wanted and can begin. Returns the bios that it ends.
    fn start(&mut self) -> Option<BioList> {
        let number = self.started.wrapping_add(1);
        let waiting = self.waiting;

        if self.is_under_way() || !self.is_wanted() || self.round(number).waiting > 0 {
            return None;
        }
        self.round(number).waiting = waiting;
        self.waiting = 0;
        self.started = number;
        Some(core::mem::replace(&mut self.bios, BioList::new()))
    }

    /// Ends the flush that is under way.
    fn end(&mut self, result: Result) {
        self.round(self.started).result = result;
        self.ended = self.started;
    }

    /// The result of a flush that was joined, for one of those who did; none before it has ended.
    fn take_result(&mut self, number: u64) -> Option<Result> {
        if self.ended < number {
            return None;
        }
        let round = self.round(number);

        round.waiting = round.waiting.wrapping_sub(1);
        Some(round.result)
    }
}

impl<'bound> Group<'bound> {
    fn new(
        region: &'bound Region,
        watchdog: Arc<Watchdog<SlowFlush>>,
    ) -> impl PinInit<Self> + use<'bound> {
        pin_init!(Self {
            region,
            watchdog,
            state <- new_mutex!(State::new()),
            changed <- new_condvar!(),
        })
    }

    /// Makes all that was written durable. Sleeps.
    // Not inlined: a flush that is not shared needs no stack frame for it.
    #[inline(never)]
    fn flush(&self) -> Result {
        // Locking drains the write-combining buffers of this CPU, so that what it has written is in
        // the memory before a flush on another CPU begins (SDM volume 3, 13.3.1).
        let number = self.state.lock().join();

        self.flush_until(|state| {
            let result = state.take_result(number)?;

            if !state.is_under_way() && state.is_wanted() {
                self.changed.notify_all();
            }
            Some(result)
        })
    }

    /// Adds `bio` to those that the next flush ends; the work has to be scheduled then. Gives it
    /// back while the system suspends.
    fn add<'a>(&self, bio: Bio<'a>) -> Result<(), Bio<'a>> {
        let mut state = self.state.lock();

        if state.is_suspending {
            return Err(bio);
        }
        state.bios.push(bio);
        Ok(())
    }

    /// Flushes once. Logs a flush that takes long.
    #[inline(never)]
    fn flush_region(&self) -> Result {
        // The provider allocates its request (7.2: with I/O), and this may be in the middle of
        // submit_bio().
        let flush = || reclaim::without_io(|| self.region.flush());
        let result = Watchdog::watch(&self.watchdog, SLOW, || match flush() {
            // A task that the OOM killer has chosen gets no memory, but others wait for this flush.
            Err(e) if e == ENOMEM => reclaim::from_reserves(flush),
            result => result,
        });

        self.watchdog.handler().ended(result);
        result
    }

    /// Flushes, or waits for those who do, until `done` returns something.
    fn flush_until<R>(&self, done: impl Fn(&mut State) -> Option<R>) -> R {
        loop {
            let mut state = self.state.lock();
            let bios = loop {
                if let Some(value) = done(&mut state) {
                    return value;
                }
                if let Some(bios) = state.start() {
                    break bios;
                }
                self.changed.wait(&mut state);
            };
            drop(state);

            let result = self.flush_region();

            self.state.lock().end(result);
            self.changed.notify_all();
            bios.end(result);
        }
    }
}

impl Job for Group<'_> {
    /// Ends bios that no thread waits for.
    fn run(&self) {
        self.flush_until(|state| state.bios.is_empty().then_some(()));
    }
}

/// Before virtio-pmem suspends, it waits for the bios that it has (7.2; in 7.3 it fails them, and
/// any flush under way, with EIO); it does not know of those that share a flush. Threads that wait
/// for a flush keep the system awake, except those that are not frozen (kthreads of an NVMe target
/// or of dm-writecache): with these, virtio-pmem may suspend in the middle of a flush, with any
/// driver.
impl SuspendHandler for Group<'_> {
    fn prepare(&self) {
        let mut state = self.state.lock();
        let busy = state.is_under_way() || !state.bios.is_empty();

        state.is_suspending = true;
        drop(state);
        if busy {
            // Each bio gets the result of its own flush. None is under way after this one.
            let _ = self.flush();
        }
    }

    fn resume(&self) {
        self.state.lock().is_suspending = false;
    }
}

/// Logs that a flush waits for the host: its waiters cannot be interrupted.
struct SlowFlush {
    dev: ARef<Device>,
    disk: DiskName,
    is_slow: Flag,
}

impl SlowFlush {
    fn new(dev: &Device, disk: DiskName) -> Self {
        Self {
            dev: dev.into(),
            disk,
            is_slow: Flag::new(false),
        }
    }

    /// The flush has ended.
    fn ended(&self, result: Result) {
        if self.is_slow.is_on() {
            self.is_slow.set(false);
            dev_warn!(
                self.dev,
                "{}: the flush has {}\n",
                self.disk,
                if result.is_ok() { "ended" } else { "failed" }
            );
        }
    }
}

impl SlowHandler for SlowFlush {
    fn slow(&self) {
        self.is_slow.set(true);
        dev_warn!(
            self.dev,
            "{}: the host has not ended a flush for {} s; unbind waits for it as well\n",
            self.disk,
            SLOW.as_millis() / 1000
        );
    }
}
