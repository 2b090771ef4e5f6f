//! Nothing to use: the stories are in `stories/`, one file for each thing that is told.
