//! Fakes and load.
