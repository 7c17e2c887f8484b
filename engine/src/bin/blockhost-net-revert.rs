//! See `blockhost_engine::cli::net_revert`. Before anything of ours is open, what was inherited is closed: a change may be
//! watched over for an hour, and must not keep a socket or a pipe of its parent's open so long.

fn main() -> std::process::ExitCode {
    close_inherited();
    blockhost_engine::cli::net_revert::main()
}

#[expect(unsafe_code, reason = "closing by number")]
fn close_inherited() {
    let open = std::fs::read_dir("/proc/self/fd").into_iter().flatten();
    let numbers: Vec<i32> = open
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|number| *number > 2)
        .collect();
    for number in numbers {
        // The listing had one itself, which is closed by now.
        if !std::path::Path::new(&format!("/proc/self/fd/{number}")).is_symlink() {
            continue;
        }
        // SAFETY: this is the first thing that the program does; beside the three standard ones, nothing in it owns a
        // descriptor.
        unsafe { rustix::io::close(number) };
    }
}
