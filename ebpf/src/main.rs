//! The eBPF programs: they count reclaim, throttling and faults per cgroup, report edges, and are the gate.
#![no_std]
#![no_main]
#![expect(clippy::needless_pass_by_value, reason = "aya's macros hand the context over by value")]

mod cgroup;
mod edge;
mod fault;
mod host;
mod maps;
mod reclaim;
mod throttle;

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier refuses loops without end: an object that loads has proved that nothing panics.
    loop {}
}

/// Some helpers are for GPL-compatible programs only, and of our licences the kernel's list has this spelling.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
