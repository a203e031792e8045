//! What a run looks like while it lasts: one line that is written over on a terminal, a line now and then elsewhere.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use super::drive::Run;

/// On a terminal.
const EVERY: Duration = Duration::from_secs(1);
/// In a log.
const EVERY_IN_LOG: Duration = Duration::from_secs(10);
/// Signs of the bar.
const BAR: usize = 24;

/// Shows, until it is dropped with the run's end.
pub(super) async fn show(run: &Run) {
    let mut err = std::io::stderr();
    let live = err.is_terminal();
    let whole = (run.load.ramp + run.load.lasting).as_secs_f64().max(f64::MIN_POSITIVE);
    let _clear = Clear(live);
    let mut before = 0;
    let mut looked = Instant::now();
    loop {
        tokio::time::sleep(if live { EVERY } else { EVERY_IN_LOG }).await;
        let (ended, errors, p50, p99) = run.tally.glance();
        let rate = (ended - before) as f64 / looked.elapsed().as_secs_f64();
        (before, looked) = (ended, Instant::now());
        let elapsed = run.tally.began().elapsed();
        let line = format!(
            "{:>4} s  {ended} ended, {rate:.0}/s, {errors} errors, p50 {p50:.1} ms, p99 {p99:.1} ms",
            elapsed.as_secs()
        );
        // Whoever closed our output does not stop the run.
        drop(if live {
            write!(err, "\r\x1b[K[{}] {line}", bar(elapsed.as_secs_f64() / whole))
        } else {
            writeln!(err, "{line}")
        });
        drop(err.flush());
    }
}

/// Leaves no half line behind.
struct Clear(bool);

impl Drop for Clear {
    fn drop(&mut self) {
        if self.0 {
            drop(write!(std::io::stderr(), "\r\x1b[K"));
        }
    }
}

fn bar(part: f64) -> String {
    (0..BAR).map(|at| if (at as f64) < part * BAR as f64 { '#' } else { '.' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_fills_and_does_not_overflow() {
        assert_eq!(bar(0.0), ".".repeat(BAR));
        assert_eq!(bar(0.5), "#".repeat(BAR / 2) + &".".repeat(BAR / 2));
        assert_eq!(bar(7.0), "#".repeat(BAR));
    }
}
