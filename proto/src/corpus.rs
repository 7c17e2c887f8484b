//! Hostile requests.
