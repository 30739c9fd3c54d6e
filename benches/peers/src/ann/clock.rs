//! Wall time and processor time, side by side: where the machine was busy with others, the first
//! has grown and the second has not.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// A moment of this process.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// On the clock of the machine.
    pub wall: Instant,
    /// Processor time that all threads of the process have had.
    cpu: Duration,
}

/// How long something took.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Taken {
    /// Wall time.
    pub seconds: f64,
    /// Processor time of all threads of the process.
    pub cpu_s: f64,
}

impl Moment {
    /// This one.
    pub fn now() -> Self {
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        let seconds = u64::try_from(cpu.tv_sec).unwrap_or_default();
        let nanoseconds = u64::try_from(cpu.tv_nsec).unwrap_or_default();
        let cpu = Duration::from_secs(seconds) + Duration::from_nanos(nanoseconds);
        Self { wall: Instant::now(), cpu }
    }

    /// From this moment to a later one.
    pub fn until(self, later: Self) -> Taken {
        Taken {
            seconds: (later.wall - self.wall).as_secs_f64(),
            cpu_s: later.cpu.saturating_sub(self.cpu).as_secs_f64(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;

    use super::*;

    #[test]
    fn processor_time_grows_with_the_work_of_every_thread() {
        let start = Moment::now();
        let work = || {
            let mut sum = 0_u64;
            while start.until(Moment::now()).cpu_s < 0.02 {
                sum = (0..1_000).fold(sum, |sum, n| black_box(sum + n));
            }
            sum
        };
        let other = std::thread::scope(|scope| scope.spawn(work).join());
        let taken = start.until(Moment::now());
        assert!(other.is_ok());
        // It was this thread that waited and the other that worked.
        assert!(taken.cpu_s >= 0.02 && taken.seconds > 0.0, "{taken:?}");
        // The other tests of this process take part, but no more than there are processors.
        let processors = std::thread::available_parallelism().map_or(1, usize::from) as f64;
        assert!(taken.cpu_s < 1.5 * processors * taken.seconds + 0.01, "{taken:?}");
    }
}
