//! outgoing-whmapi: WHM API 1 and UAPI over HTTP.

fn main() {}
