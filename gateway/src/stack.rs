//! What is fixed for every request, as an ordered list of stock layers.

use std::convert::Infallible;
use std::rc::Rc;

use http::{Request, Response};
use hyper::body::Incoming;
use tower::{Service, ServiceBuilder};
use tower_http::request_id::{PropagateRequestIdLayer, SetRequestIdLayer};

use crate::proxy::reply::Reply;
use crate::proxy::respond;
use crate::proxy::worker::{Client, Worker};
use crate::request_id::{self, MakeFresh};

/// The service of one client connection.
#[must_use]
pub fn build(
    worker: Rc<Worker>,
    client: Rc<Client>,
) -> impl Service<Request<Incoming>, Response = Response<Reply>, Error = Infallible, Future: 'static>
+ Clone
+ 'static {
    ServiceBuilder::new()
        .map_request(without_bad_id)
        .layer(SetRequestIdLayer::x_request_id(MakeFresh))
        .layer(PropagateRequestIdLayer::x_request_id())
        .service_fn(move |request| respond(Rc::clone(&worker), Rc::clone(&client), request))
}

/// Only a client's single, valid id is taken over.
fn without_bad_id(mut request: Request<Incoming>) -> Request<Incoming> {
    if request_id::of(request.headers()).is_none() {
        request.headers_mut().remove(config::names::REQUEST_ID);
    }
    request
}
