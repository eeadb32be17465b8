//! Where a request is worked on until its answer begins. The future of that is large, for it has the
//! size of all that it may do, so its memory is used again by the next request of the worker.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use crate::body::ClientBody;
use crate::message::{RequestHead, ResponseHead};
use crate::proxy::reply::Reply;
use crate::proxy::respond;
use crate::proxy::worker::{Client, Worker};

/// Desks that are kept though nobody works at them: as many as requests of one worker are usually
/// under way at once, at a few KiB each.
const FREE_MAX: usize = 64;

thread_local! {
    static FREE: RefCell<Vec<Pin<Box<dyn Desk>>>> = const { RefCell::new(Vec::new()) };
}

/// What a request comes to.
type Answer = (ResponseHead, Reply);

/// A request that is worked on; dropped, it is cancelled.
pub(super) struct Work(Option<Pin<Box<dyn Desk>>>);

impl Work {
    /// Begins with a request.
    pub(super) fn begin(
        worker: &Rc<Worker>,
        client: &Rc<Client>,
        request: (Box<RequestHead>, ClientBody),
    ) -> Self {
        let free = FREE.with_borrow_mut(Vec::pop);
        let mut desk = free.unwrap_or_else(|| desk(respond));
        desk.as_mut().begin(Rc::clone(worker), Rc::clone(client), request);
        Self(Some(desk))
    }

    /// Ready, once, with the answer.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Answer> {
        self.0.as_mut().map_or(Poll::Pending, |desk| desk.as_mut().poll(cx))
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        let Some(mut desk) = self.0.take() else { return };
        desk.as_mut().clear();
        // When the thread ends, there is nothing left to give it back to.
        let _ = FREE.try_with(|free| {
            let free = &mut *free.borrow_mut();
            if free.len() < FREE_MAX {
                free.push(desk);
            }
        });
    }
}

/// A place for one request's future, whose type nobody can write down.
trait Desk {
    fn begin(
        self: Pin<&mut Self>,
        worker: Rc<Worker>,
        client: Rc<Client>,
        request: (Box<RequestHead>, ClientBody),
    );

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer>;

    fn clear(self: Pin<&mut Self>);
}

pin_project_lite::pin_project! {
    struct Place<M, F> {
        make: M,
        #[pin]
        future: Option<F>,
    }
}

fn desk<M, F>(make: M) -> Pin<Box<dyn Desk>>
where
    M: Fn(Rc<Worker>, Rc<Client>, (Box<RequestHead>, ClientBody)) -> F + 'static,
    F: Future<Output = Answer> + 'static,
{
    Box::pin(Place { make, future: None })
}

impl<M, F> Desk for Place<M, F>
where
    M: Fn(Rc<Worker>, Rc<Client>, (Box<RequestHead>, ClientBody)) -> F,
    F: Future<Output = Answer>,
{
    fn begin(
        self: Pin<&mut Self>,
        worker: Rc<Worker>,
        client: Rc<Client>,
        request: (Box<RequestHead>, ClientBody),
    ) {
        let mut this = self.project();
        let future = (this.make)(worker, client, request);
        this.future.set(Some(future));
    }

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer> {
        self.project().future.as_pin_mut().map_or(Poll::Pending, |future| future.poll(cx))
    }

    fn clear(self: Pin<&mut Self>) {
        self.project().future.set(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The size of what a function gives.
    fn size<F>(_: impl Fn(Rc<Worker>, Rc<Client>, (Box<RequestHead>, ClientBody)) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn the_future_of_a_request_stays_small() {
        let size = size(respond);
        assert!(size <= 5 * 1024, "{size} bytes for each request under way");
    }
}
