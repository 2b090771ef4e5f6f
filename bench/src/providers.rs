//! Group `providers`: the cost of parsing provider responses.

mod fetch;
mod headers;
mod layer;
mod parse;

use crate::local;
use crate::row::Row;

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = parse::rows();
    rows.extend(headers::rows());
    rows.extend(layer::rows());
    rows.push(fetch::row());
    rows.push(local::status_of_many_providers());
    rows
}
