//! What is fixed for every request, whatever the table says: its id.

use std::rc::Rc;

use http::{Request, Response};

use crate::body::ClientBody;
use crate::proxy::reply::Reply;
use crate::proxy::respond;
use crate::proxy::worker::{Client, Worker};
use crate::request_id;

/// Answers one request of a client connection, whatever happens. Only a client's single, valid id
/// is taken over; a reply of whatever kind has the id that its request has.
pub fn answer(
    worker: Rc<Worker>,
    client: Rc<Client>,
    mut request: Request<ClientBody>,
) -> impl Future<Output = Response<Reply>> + 'static {
    let id = request_id::settle(request.headers_mut());
    // No layer of its own around it: each would move the future, which is large, once more.
    respond(worker, client, id, request)
}
