//! The store against real servers, each started by the test that needs it.
//! What is pure is tested beside the code.

mod conformance;
mod world;
