// SPDX-License-Identifier: GPL-2.0

//! Limits the share of time that repeated work takes.

use std::time::{Duration, Instant};

/// Repeats something that may take long, so that it takes a twentieth of the time at most.
#[derive(Default)]
pub(crate) struct Throttle {
    /// When it had ended, and the time that it took.
    last: Option<(Instant, Duration)>,
}

impl Throttle {
    pub(crate) fn is_due(&self) -> bool {
        self.last
            .is_none_or(|(ended, took)| ended.elapsed() >= took * 20)
    }

    pub(crate) fn time<R>(&mut self, run: impl FnOnce() -> R) -> R {
        let begun = Instant::now();
        let value = run();
        self.last = Some((Instant::now(), begun.elapsed()));
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn slow_work_is_repeated_seldom() {
        let mut throttle = Throttle::default();
        assert!(throttle.is_due());
        throttle.time(|| thread::sleep(Duration::from_millis(20)));
        assert!(!throttle.is_due());
        throttle.last = Some((
            Instant::now() - Duration::from_secs(1),
            Duration::from_millis(20),
        ));
        assert!(throttle.is_due());
    }
}
