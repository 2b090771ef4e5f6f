//! Group `core`: reads, shared refreshes, and the memory per account, on the memory store.

pub(crate) mod account_bytes;
mod herd;
mod reads;

use crate::row::Row;

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = reads::rows();
    rows.extend(herd::rows());
    rows.extend(account_bytes::rows());
    rows
}
