//! Runs an opened program with a fixed environment, bounded output and a deadline.
