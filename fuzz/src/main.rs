//! One program for all targets: `BLOCKHOST_TARGET` names the one that libFuzzer feeds. With `BLOCKHOST_SEEDS=1` it
//! writes the seeds of all into `corpus/` and prints the names instead.
#![no_main]

mod features;
mod ledger;

use std::path::Path;
use std::sync::LazyLock;
use std::{env, fs};

use blockhost_proto::fuzz::Target;
use libfuzzer_sys::fuzz_target;

fn targets() -> Vec<Target> {
    let mut list = blockhost_proto::fuzz::TARGETS.to_vec();
    list.extend(blockhost_root_agent::fuzz::targets());
    list.extend(ledger::TARGETS);
    list.extend(features::TARGETS);
    list
}

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = env::var("BLOCKHOST_TARGET").unwrap_or_default();
    targets()
        .into_iter()
        .find(|target| target.name == name)
        .unwrap_or_else(|| {
            let names: Vec<_> = targets().iter().map(|target| target.name).collect();
            panic!(
                "BLOCKHOST_TARGET is \"{name}\"; it may be {}",
                names.join(", ")
            )
        })
});

fn write_seeds() -> std::io::Result<()> {
    for target in targets() {
        let directory = Path::new("corpus").join(target.name);
        fs::create_dir_all(&directory)?;
        for (number, seed) in (target.seeds)().iter().enumerate() {
            fs::write(directory.join(format!("seed-{number}")), seed)?;
        }
        println!("{}", target.name);
    }
    Ok(())
}

fuzz_target!(
    init: {
        if env::var_os("BLOCKHOST_SEEDS").is_some() {
            write_seeds().expect("the corpus can be written");
            std::process::exit(0);
        }
    },
    |data: &[u8]| (TARGET.run)(data)
);
