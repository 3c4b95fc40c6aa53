//! Loads the embedded object into this kernel: finds out what the programs must know, creates the maps, attaches.

use std::{fs, io};

use aya::maps::{Map, MapError};
use aya::{Ebpf, EbpfError, EbpfLoader, Endianness, util};
use plimsoll_ebpf::{Offsets, Settings};

use super::batch::Batch;
use super::btf::Btf;
use super::gate::{Gate, Set};
use super::hook::{self, Hook, Kernel};
use super::{Options, Probes, ProbesError, Ring};

const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// Compiled by build.rs.
static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("PLIMSOLL_BPF_OBJECT_PATH"));

pub(super) fn load(options: &Options) -> Result<Probes, ProbesError> {
    let blob = fs::read(VMLINUX).map_err(|source| ProbesError::NoBtf { path: VMLINUX, source })?;
    let btf = Btf::parse(&blob)?;
    let aya = aya::Btf::parse(&blob, Endianness::default()).map_err(|error| refused(error.into()))?;
    let settings = settings(options, &btf);
    let offsets = offsets(&btf);
    let mut ebpf = EbpfLoader::new()
        .btf(Some(&aya))
        .override_global("SETTINGS", &settings, true)
        .override_global("OFFSETS", &offsets.unwrap_or_default(), true)
        .load(OBJECT)
        .map_err(refused)?;
    let kernel = Kernel { btf: &btf, aya: &aya };
    let (mut hooks, links) = hook::attach_all(&mut ebpf, kernel);
    require_one(&hooks)?;
    if offsets.is_none() {
        without_offsets(&mut hooks);
    }
    let program = hook::load_gate(&mut ebpf, kernel);
    hooks.push(Hook { name: "gate", attached: program.clone().map(|_| ()) });
    let sets = [
        Set::new("TARGETS", take(&mut ebpf, "TARGETS")?),
        Set::new("PROTECTED", take(&mut ebpf, "PROTECTED")?),
    ];
    Ok(Probes {
        hooks,
        counters: take(&mut ebpf, "COUNTERS")?,
        histograms: take(&mut ebpf, "HISTOGRAMS")?,
        host: take(&mut ebpf, "HOST")?,
        ignored: take(&mut ebpf, "IGNORED")?,
        gate: Gate::new(take(&mut ebpf, ".bss")?, sets, options.gate_window, program),
        ring: Some(Ring::new(take(&mut ebpf, "EVENTS")?)),
        counters_batch: Batch::new(),
        histograms_batch: Batch::new(),
        cpus: util::nr_cpus().map_err(|(path, source)| ProbesError::Cpus { path, source })?,
        ebpf,
        _links: links,
    })
}

fn settings(options: &Options, btf: &Btf<'_>) -> Settings {
    Settings {
        stall_edge_ns: options.stall_edge.0,
        quiet_ns: options.quiet.0,
        pause_ns: options.pause.0,
        own_tgid: std::process::id(),
        victim_is_task: btf.tracepoint_takes_pointer("mark_victim", 0).unwrap_or(false).into(),
    }
}

/// `None` where this kernel keeps something elsewhere: then no cgroup but the current task's is known.
fn offsets(btf: &Btf<'_>) -> Option<Offsets> {
    Some(Offsets {
        mem_cgroup_cgroup: btf.offset("mem_cgroup", &["css", "cgroup"])?,
        cgroup_kn: btf.offset("cgroup", &["kn"])?,
        kernfs_node_id: btf.offset("kernfs_node", &["id"])?,
        task_cgroups: btf.offset("task_struct", &["cgroups"])?,
        css_set_cgroup: btf.offset("css_set", &["dfl_cgrp"])?,
        task_pid: btf.offset("task_struct", &["pid"])?,
        task_tgid: btf.offset("task_struct", &["tgid"])?,
        reserved: 0,
    })
}

/// The hooks are attached, and see no cgroup: say so instead of counting nothing in silence.
fn without_offsets(hooks: &mut [Hook]) {
    for hook in hooks.iter_mut().filter(|hook| matches!(hook.name, "memcg_reclaim_target" | "cgroup_rmdir")) {
        hook.attached = Err("the kernel's BTF lacks a field on the way to the cgroup id".to_owned());
    }
}

fn require_one(hooks: &[Hook]) -> Result<(), ProbesError> {
    if hooks.iter().any(|hook| hook.attached.is_ok()) {
        return Ok(());
    }
    let why = hooks.iter().find_map(|hook| hook.attached.as_ref().err()).cloned().unwrap_or_default();
    Err(if why.contains("(os error 1)") { ProbesError::NotPermitted } else { ProbesError::NoHook(why) })
}

fn refused(error: EbpfError) -> ProbesError {
    match &error {
        EbpfError::MapError(MapError::CreateError { io_error, .. })
            if io_error.kind() == io::ErrorKind::PermissionDenied =>
        {
            ProbesError::NotPermitted
        }
        _ => ProbesError::Load(Box::new(error)),
    }
}

/// Takes a map out of the object by its name, as the type that it was declared with.
fn take<M: TryFrom<Map, Error = MapError>>(ebpf: &mut Ebpf, name: &'static str) -> Result<M, ProbesError> {
    ebpf.take_map(name).ok_or(ProbesError::Missing(name))?.try_into().map_err(ProbesError::map(name))
}
