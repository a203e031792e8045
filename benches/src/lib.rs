//! Benches of the hot path; see `benches/`.
