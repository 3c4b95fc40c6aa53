//! `cargo xtask image`: the container image as an OCI archive.
mod archive;
mod context;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, ensure};
use clap::{Args, ValueEnum};

use crate::{build, setup};

/// What is built, and where it goes.
#[derive(Args)]
pub(crate) struct Arguments {
    /// How the program is compiled: `vm` is quicker to link, and what the tests run
    #[arg(long, value_enum, default_value = "release")]
    profile: Profile,
    /// Name of the image, with its tag
    #[arg(long, default_value = NAME)]
    name: String,
    /// The archive; target/image/plimsoll.tar if not given
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// How the program is compiled.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Profile {
    /// As it is shipped
    Release,
    /// As the guests of the tests have it
    Vm,
}

impl Profile {
    const fn name(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Vm => "vm",
        }
    }
}

/// The image's name in the manifests. No registry can be asked for one on localhost, so nobody else's image of this name is ever pulled.
pub(crate) const NAME: &str = concat!("localhost/plimsoll:", env!("CARGO_PKG_VERSION"));

/// Builds the image and says how large it is.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let built = image(arguments.profile, &arguments.name, arguments.output.as_deref())?;
    let size = |bytes: u64| format!("{:.1} MB", bytes as f64 / 1e6);
    let archive = size(built.path.metadata()?.len());
    println!("{}: {} ({archive}, unpacked {})", arguments.name, built.path.display(), size(built.unpacked));
    println!("import it into containerd: ctr --namespace k8s.io images import {}", built.path.display());
    Ok(ExitCode::SUCCESS)
}

/// A finished image.
pub(crate) struct Image {
    /// The archive.
    pub(crate) path: PathBuf,
    /// Bytes of the files in it.
    pub(crate) unpacked: u64,
}

/// Builds the image as `manifests/Containerfile` says.
pub(crate) fn image(profile: Profile, name: &str, output: Option<&Path>) -> Result<Image> {
    setup::image_builder()?;
    let program = build::program_as(profile.name(), "plimsoll", "plimsoll")?;
    let dir = build::root().join("target/image");
    let context = dir.join("context");
    let unpacked = context::lay_out(&program, &context)?;
    let layout = tempfile::tempdir().context("a directory for the image")?;
    buildah(&context, name, layout.path())?;
    let path = output.map_or_else(|| dir.join("plimsoll.tar"), Path::to_owned);
    archive::write(&layout.path().join("layout"), name, &path).with_context(|| path.display().to_string())?;
    Ok(Image { path, unpacked })
}

/// Lets buildah read the container file, and leaves an OCI layout in `scratch`. Its store is in there as well: nothing of it outlives the build.
fn buildah(context: &Path, name: &str, scratch: &Path) -> Result<()> {
    let store = |command: &mut Command| {
        command.arg("--root").arg(scratch.join("store")).arg("--runroot").arg(scratch.join("run"));
        command.args(["--storage-driver", "vfs"]);
    };
    let mut bud = Command::new("buildah");
    store(&mut bud);
    // What has no time and no mark of its builder is the same bytes twice.
    bud.args(["build", "--quiet", "--isolation", "chroot", "--format", "oci", "--timestamp", "0"]);
    bud.args(["--identity-label=false", "--build-arg", concat!("VERSION=", env!("CARGO_PKG_VERSION"))]);
    bud.arg("--tag").arg(name).arg("--file").arg(build::root().join("manifests/Containerfile")).arg(context);
    finished(&mut bud)?;
    let mut push = Command::new("buildah");
    store(&mut push);
    push.args(["push", "--quiet", name]).arg(format!("oci:{}:{name}", scratch.join("layout").display()));
    finished(&mut push)
}

fn finished(command: &mut Command) -> Result<()> {
    let output = command.output().context("running buildah")?;
    ensure!(output.status.success(), "buildah: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}
