//! A timer that serves one deadline after another. Moving a timer costs; so it is moved only to fire
//! earlier, and when it fires too early. A connection's next request mostly has a later deadline.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::time::{Instant, Sleep};

/// See the module. Made when there is first something to wait for.
#[derive(Default)]
pub(super) struct Clock(Option<Pin<Box<Sleep>>>);

impl Clock {
    /// Ready once `due` has come.
    pub(super) fn poll(&mut self, due: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let timer = self.0.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
        if due < timer.deadline() {
            timer.as_mut().reset(due);
        }
        loop {
            ready!(timer.as_mut().poll(cx));
            if timer.deadline() >= due {
                return Poll::Ready(());
            }
            timer.as_mut().reset(due);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_deadline_is_kept_whichever_came_before() {
        let mut clock = Clock::default();
        for seconds in [5, 1, 3, 2, 7, 7, 0] {
            let due = Instant::now() + Duration::from_secs(seconds);
            // Somebody looks, and then goes on to the next deadline without waiting for this one.
            let later = due + Duration::from_secs(60);
            std::future::poll_fn(|cx| Poll::Ready(clock.poll(later, cx).is_ready())).await;
            std::future::poll_fn(|cx| clock.poll(due, cx)).await;
            let late = Instant::now() - due;
            assert!(late < Duration::from_millis(2), "{late:?}");
        }
    }
}
