//! The vm compartment with recorded programs in the place of `qm` and `pct`: what they are called with, and the answers
//! that a test gives in their name.
#![allow(dead_code, reason = "every test binary uses its own part of this")]

use blockhost_root_agent::compartment::{Backend, Done, Failure, Handler, vm};
use serde_json::Value;

use crate::compartment_world::{World, is_root};

/// Records its arguments, then does what the world's file `answer` says.
const RECORDER: &str = "#!/bin/sh\nfor word; do printf '%s\\037' \"$word\"; done >>\"$BLOCKHOST_ROOT/var/lib/blockhost/called\"\nprintf '\\n' >>\"$BLOCKHOST_ROOT/var/lib/blockhost/called\"\n[ -e \"$BLOCKHOST_ROOT/var/lib/blockhost/answer\" ] && . \"$BLOCKHOST_ROOT/var/lib/blockhost/answer\"\nexit 0\n";

pub struct Vm {
    pub world: World,
    pub handler: Box<dyn Handler>,
}

impl Vm {
    pub fn new() -> Option<Self> {
        Self::on(Backend::Embedded)
    }

    pub fn on(backend: Backend) -> Option<Self> {
        if !is_root() {
            println!("skipped: a program of root's needs root");
            return None;
        }
        let mut world = World::new();
        world.policy.programs.qm = Some(world.script("qm", RECORDER));
        world.policy.programs.pct = Some(world.script("pct", RECORDER));
        let handler = world
            .start_on(backend, vm::prepare)
            .expect("a vm compartment");
        Some(Vm { world, handler })
    }

    /// Shell text that decides about output and exit code; `$1` is the verb.
    pub fn answers(&self, shell: &str) {
        std::fs::write(self.world.layout.state().join("answer"), shell).expect("an answer");
    }

    pub fn ask(&self, name: &str, params: Value) -> Result<Done, Failure> {
        self.world.ask(&*self.handler, name, &params)
    }

    /// The recorded calls since the last look, each as its words.
    pub fn calls(&self) -> Vec<Vec<String>> {
        let path = self.world.layout.state().join("called");
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let _ = std::fs::remove_file(&path);
        text.split("\u{1f}\n")
            .filter(|call| !call.is_empty())
            .map(|call| call.split('\u{1f}').map(str::to_owned).collect())
            .collect()
    }
}

pub fn output(result: Result<Done, Failure>) -> Value {
    let done = result.unwrap_or_else(|failure| panic!("{}", failure.message));
    serde_json::from_str(&done.output).expect("JSON")
}
