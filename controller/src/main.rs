//! Arguments -> tracing -> config -> build -> run -> drain; nothing else.
fn main() {}
