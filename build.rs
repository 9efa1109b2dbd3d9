//! How the programs are linked.

fn main() {
    // Addresses that the loader has to correct are listed in an eightieth of the space, which an idle
    // sidecar otherwise keeps in memory: half a MiB and more. The C library understands it from 2.36 on;
    // a linker that does not says so, and goes on.
    println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    println!("cargo:rerun-if-changed=build.rs");
}
