//! `relais-load`: the fakes and the demo as a command.

fn main() {}
