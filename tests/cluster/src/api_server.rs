//! The API server's flags: as on a cluster that somebody hardened a little, on loopback.
use std::path::PathBuf;

use crate::Cluster;
use crate::process::Program;

/// What a guest of the emulator reaches our loopback by. A loopback address is refused here.
pub(crate) const SEEN_BY_GUESTS: &str = "10.0.2.2";
/// Where pods find services. The API server's own is the first address, 10.96.0.1.
const SERVICES: &str = "10.96.0.0/16";
const ISSUER: &str = "https://kubernetes.default.svc";

impl Cluster {
    pub(crate) fn api_server_program(&self) -> Program {
        let mut program = self.program("kube-apiserver");
        program.flag("etcd-servers", format!("http://127.0.0.1:{}", self.etcd_port));
        program.flag("bind-address", "127.0.0.1").flag("secure-port", self.port);
        program.flag("advertise-address", SEEN_BY_GUESTS).flag("service-cluster-ip-range", SERVICES);
        program.flag("cert-dir", self.dir().join("certificates").display());
        program.flag("token-auth-file", self.dir().join("tokens.csv").display());
        program.flag("authorization-mode", "Node,RBAC").flag("allow-privileged", true);
        program.flag("enable-admission-plugins", "NodeRestriction,Priority");
        if self.options.controllers.is_none() {
            // It waits for a token that a controller would make.
            program.flag("disable-admission-plugins", "ServiceAccount");
        }
        // The key that it makes for its own certificate signs service accounts' tokens as well.
        program.flag("service-account-issuer", ISSUER);
        program.flag("service-account-key-file", self.key().display());
        program.flag("service-account-signing-key-file", self.key().display());
        program
    }

    pub(crate) fn certificate(&self) -> PathBuf {
        self.dir().join("certificates/apiserver.crt")
    }

    pub(crate) fn key(&self) -> PathBuf {
        self.dir().join("certificates/apiserver.key")
    }
}
