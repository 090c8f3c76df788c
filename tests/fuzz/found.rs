//! What was found once.
