//! A real control plane on this machine, for tests: etcd and the API server, on request the controllers and the scheduler.
//!
//! It listens on loopback only, which a guest of the emulator reaches as well. Everything ends when [`Cluster`] is dropped, after
//! a panic too, and when the process that holds it is killed.
#![forbid(unsafe_code)]
mod access;
mod api_server;
mod kubectl;
mod process;
mod ready;

use std::net::TcpListener;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

pub use access::{Place, User};

use process::{Process, Program};

/// What of the control plane runs, and for whom.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The directory of the programs; `cargo xtask setup` makes it.
    pub programs: PathBuf,
    /// Nodes that need an identity of their own, as kubelets do: [`User::Node`]. No Node objects are made.
    pub nodes: Vec<String>,
    /// Which controllers run, as `kube-controller-manager --controllers` takes it: [`ALL`], [`NO_KUBELETS`]. Without any, pods
    /// need no service account, and nothing but a test writes to the API server.
    pub controllers: Option<&'static str>,
    /// Whether the scheduler runs; pods that name their node need none.
    pub scheduler: bool,
}

/// All controllers.
pub const ALL: &str = "*";
/// Those that leave Node objects alone for which no kubelet speaks, and the pods on them.
pub const NO_KUBELETS: &str = "*,-nodelifecycle,-podgc";

impl Options {
    /// Only etcd and the API server, with the programs that `$PLIMSOLL_KUBERNETES` names.
    ///
    /// # Errors
    /// Where it is not set: `cargo xtask test` sets it.
    pub fn from_env() -> Result<Self> {
        let programs = std::env::var_os("PLIMSOLL_KUBERNETES")
            .context("no PLIMSOLL_KUBERNETES: `cargo xtask test --cluster` sets it")?;
        Ok(Self { programs: programs.into(), ..Self::default() })
    }
}

/// A control plane that runs.
#[derive(Debug)]
pub struct Cluster {
    options: Options,
    port: u16,
    etcd_port: u16,
    // Stopped in this order: who asks before who is asked.
    others: Vec<Process>,
    api_server: Option<Process>,
    _etcd: Process,
    dir: TempDir,
}

impl Cluster {
    /// Starts it, and waits until it answers (some seconds).
    ///
    /// # Errors
    /// What did not start, with the end of its log.
    pub fn start(options: Options) -> Result<Self> {
        ensure!(
            options.programs.join("kube-apiserver").is_file(),
            "no kube-apiserver in {}",
            options.programs.display()
        );
        let dir = tempfile::Builder::new().prefix("plimsoll-cluster-").tempdir()?;
        let [port, etcd_port, peer_port] = free_ports()?;
        access::write_tokens(dir.path(), &options.nodes)?;
        let etcd = etcd(&options, dir.path(), etcd_port, peer_port).start()?;
        let mut cluster =
            Self { options, port, etcd_port, others: Vec::new(), api_server: None, _etcd: etcd, dir };
        cluster.start_api_server()?;
        cluster.start_others()?;
        Ok(cluster)
    }

    /// Where logs, tokens and kubeconfigs lie, until the cluster is dropped.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Starts the API server, on the port and the data that it had.
    ///
    /// # Errors
    /// If it does not answer within a minute or two.
    pub fn start_api_server(&mut self) -> Result<()> {
        if self.api_server.is_none() {
            self.api_server = Some(self.api_server_program().start()?);
        }
        self.wait_until_ready()
    }

    /// Kills the API server. All its data stay in etcd.
    pub fn stop_api_server(&mut self) {
        self.api_server = None;
    }

    /// Its process, for meters.
    #[must_use]
    pub fn api_server_pid(&self) -> Option<u32> {
        self.api_server.as_ref().map(Process::id)
    }

    fn start_others(&mut self) -> Result<()> {
        let [controllers, scheduler] = free_ports()?;
        let admin = self.kubeconfig(&User::Admin, Place::Here)?;
        if let Some(which) = self.options.controllers {
            let mut program = self.program("kube-controller-manager");
            program.flag("kubeconfig", admin.display()).flag("controllers", which);
            program.flag("service-account-private-key-file", self.key().display());
            program.flag("root-ca-file", self.certificate().display());
            self.others.push(alone(&mut program, controllers).start()?);
            self.wait_for_service_account()?;
        }
        if self.options.scheduler {
            let mut program = self.program("kube-scheduler");
            program.flag("kubeconfig", admin.display());
            self.others.push(alone(&mut program, scheduler).start()?);
        }
        Ok(())
    }

    fn program(&self, name: &str) -> Program {
        Program::new(&self.options.programs.join(name), self.dir.path())
    }
}

/// For the only one of its kind, on one port.
fn alone(program: &mut Program, port: u16) -> &mut Program {
    program
        .flag("leader-elect", false)
        .flag("port", 0)
        .flag("secure-port", port)
        .flag("bind-address", "127.0.0.1")
}

fn etcd(options: &Options, dir: &Path, port: u16, peers: u16) -> Program {
    let mut program = Program::new(&options.programs.join("etcd"), dir);
    let (clients, peers) = (format!("http://127.0.0.1:{port}"), format!("http://127.0.0.1:{peers}"));
    program.flag("data-dir", dir.join("etcd").display()).flag("log-level", "error");
    program.flag("listen-client-urls", &clients).flag("advertise-client-urls", &clients);
    program.flag("listen-peer-urls", &peers).flag("initial-advertise-peer-urls", &peers);
    program.flag("initial-cluster", format!("default={peers}"));
    // Nobody needs the data after the machine has lost power.
    program.switch("unsafe-no-fsync");
    program
}

/// Ports that nobody listens on now.
fn free_ports<const N: usize>() -> Result<[u16; N]> {
    // All are held until all are known: otherwise two might be the same.
    let held: Vec<_> = (0..N).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
    let ports = held.iter().map(|listener| Ok(listener.local_addr()?.port())).collect::<Result<Vec<_>>>()?;
    Ok(std::array::from_fn(|index| ports[index]))
}
