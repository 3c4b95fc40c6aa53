//! The loads that tests and demo put on a machine, one sub-command each.

use clap::Parser;

mod demo;
mod eaters;
mod giver;
mod gpu_server;
mod heap;
mod launch;
mod memory;
mod model_server;
mod program;
mod random;
mod requests;
mod say;
mod signals;
mod socket;
mod time;
mod weights;

/// Loads for the kernel tests and the demo. Each says on standard output, as JSON lines, when it is ready, begins to
/// grow and has grown, with CLOCK_MONOTONIC; each runs until it is killed, except `weights`, `requests` and `story`.
#[derive(Parser)]
#[command(version)]
enum Load {
    /// Serve a model from mapped weights and a KV cache, answering requests over a socket
    ModelServer(model_server::Args),
    /// Send requests on schedule and log every latency
    Requests(requests::Args),
    /// Grow to a size at a rate and keep touching it, or sit idle on it
    BatchJob(eaters::BatchJob),
    /// Grow slowly without end
    Leaker(eaters::Leaker),
    /// Read a file over and over: page-cache pressure only
    Scanner(eaters::Scanner),
    /// Allocate in one bulk call, which can't be frozen while it is throttled
    Populate(eaters::Populate),
    /// Hold memory of GPUs that only the tests' driver knows, and give it back when signalled
    GpuServer(gpu_server::Args),
    /// Hold memory and give it back when asked
    Giver(giver::Args),
    /// Hold memory, and give it back when the controller asks
    Program(program::Args),
    /// Use processor time only
    Spin(eaters::Spin),
    /// Write a file of random content and drop it from the page cache
    Weights(weights::Args),
    /// Join a cgroup and become another program
    Launch(launch::Args),
    /// Play one story of the demo in a virtual machine
    Story(demo::Args),
}

fn main() -> anyhow::Result<()> {
    match Load::parse() {
        Load::ModelServer(args) => model_server::run(args),
        Load::Requests(args) => requests::run(&args),
        Load::BatchJob(args) => eaters::batch_job(&args),
        Load::Leaker(args) => eaters::leaker(&args),
        Load::Scanner(args) => eaters::scanner(&args),
        Load::Populate(args) => eaters::populate(&args),
        Load::GpuServer(args) => gpu_server::run(&args),
        Load::Giver(args) => giver::run(&args),
        Load::Program(args) => program::run(&args),
        Load::Spin(args) => eaters::spin(&args),
        Load::Weights(args) => weights::run(&args),
        Load::Launch(args) => launch::run(&args),
        Load::Story(args) => demo::run(&args),
    }
}
