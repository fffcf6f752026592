//! The real program in front of real servers.
