//! What one durable append costs beside a bare write and fdatasync; and that it is one write and one sync.

mod common;

use blockhost_ledger::record::Phase;
use common::{World, draft};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::time::{Duration, Instant};

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

#[test]
fn an_append_costs_about_what_a_bare_write_and_fdatasync_cost() {
    let world = World::new();
    let (mut writer, _) = world.open();
    let mut bare = std::fs::File::create(world.path().join("bare")).expect("made");
    bare.write_all(&vec![0; 1 << 20]).expect("written");
    bare.sync_all().expect("synced");
    bare.seek(SeekFrom::Start(0)).expect("rewound");
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for n in 0..200 {
        let draft = draft(Phase::Event, &format!("e{n}"));
        let start = Instant::now();
        writer
            .append(std::slice::from_ref(&draft))
            .expect("appended");
        ours.push(start.elapsed());
        let start = Instant::now();
        bare.write_all(&[b'x'; 900]).expect("written");
        bare.sync_data().expect("synced");
        theirs.push(start.elapsed());
    }
    let (ours, theirs) = (median(ours), median(theirs));
    println!("append p50 {ours:?}, bare write+fdatasync p50 {theirs:?}");
    // Generous, because this runs unoptimised beside other tests; the benchmark holds the tight number.
    assert!(
        ours < theirs * 10 + Duration::from_millis(2),
        "{ours:?} against {theirs:?}"
    );
}
