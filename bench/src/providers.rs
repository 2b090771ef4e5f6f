//! Group `providers`: what reading the responses of providers costs.

mod headers;
mod layer;

use crate::row::Row;

pub(crate) fn rows() -> Vec<Row> {
    headers::rows().into_iter().chain(layer::rows()).collect()
}
