//! See `blockhost_engine::cli::mint_nft`.

fn main() -> std::process::ExitCode {
    blockhost_engine::cli::mint_nft::main()
}
