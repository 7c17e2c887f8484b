//! Callers that mean harm: wrong types, huge and evil arguments, floods; and what dies in between.

use std::time::Duration;

use blockhost_tests::command::run;
use blockhost_tests::switch::eventually;
use blockhost_tests::world::bus::{As, Polkit, call, client};
use blockhost_tests::world::services::Service;
use serde_json::Value;

use crate::bus_world::{Stage, asked, refusal, stage};

#[test]
fn hostile_callers_get_refusals_and_others_their_answers() {
    let Some(mut stage) = stage(
        "hostile::hostile_callers_get_refusals_and_others_their_answers",
        Polkit::Absent,
    ) else {
        return;
    };
    stage.bridge("ovsbr0");
    let changes = |stage: &Stage| {
        let records = stage.records();
        records
            .iter()
            .filter(|record| record["operation"] != "query")
            .count()
    };
    let before = changes(&stage);
    // Wrong types, missing and extra arguments, unknown names; raw, past every client's own checks.
    const HOSTILE: &str = "\
import dbus, sys
bus = dbus.SystemBus()
def refused(method, signature, *args):
    try:
        bus.call_blocking('dev.ovs.PortAgent1', '/dev/ovs/PortAgent1', 'dev.ovs.PortAgent1', method, signature, args, timeout=60)
    except dbus.exceptions.DBusException as error:
        return error.get_dbus_name()
    raise SystemExit('%s %s was not refused' % (method, str(args)[:80]))
ours = 'dev.ovs.PortAgent1.Error.'
theirs = 'org.freedesktop.DBus.Error.'
huge = 'x' * (16 << 20)
evil = ['', huge, '../../etc/passwd', '-x', 'a\\nb', '\\u202e', 'ovsbr0 ', '*', '%s%n', \"'; drop\", 'all', 'LOCAL']
for text in evil:
    for method, rest in [('GetBridgeTopology', ()), ('ValidateBridgeConnectivity', ())]:
        assert refused(method, 's', text) == ours + 'NotFound', (method, text[:20])
    assert refused('DumpFlows', 's', text) == ours + 'InvalidArgument', text[:20]
    assert refused('AddPort', 'ss', text, 'vi100') == ours + 'InvalidArgument', text[:20]
    assert refused('AddPort', 'ss', 'ovsbr0', text) == ours + 'InvalidArgument', text[:20]
    assert refused('DelPort', 'ss', text, 'vi100') == ours + 'InvalidArgument', text[:20]
    assert refused('CreateContainerInterface', 'ssu', text, 'c', 100) == ours + 'InvalidArgument', text[:20]
    assert refused('RemoveContainerInterface', 's', text) == ours + 'InvalidArgument', text[:20]
    assert refused('GetBlockByHash', 's', text) == ours + 'InvalidArgument', text[:20]
for text in ['', huge]:
    assert refused('GetBlocksByCategory', 's', text) == ours + 'InvalidArgument'
for vmid in [0, 99, 1000000, 4294967295]:
    assert refused('CreateContainerInterface', 'ssu', 'veth1', 'c', vmid) == ours + 'InvalidArgument'
for first, last in [(0, 1), (2, 1), (0, 0), (18446744073709551615, 1)]:
    assert refused('GetBlocksByHeight', 'tt', first, last) == ours + 'InvalidArgument'
assert refused('GetBlockByHash', 's', 'ab' * 32) == ours + 'NotFound'
for method, signature, args in [
    ('AddPort', 's', ('a',)), ('AddPort', 'si', ('a', 1)), ('AddPort', 'as', (['a', 'b'],)), ('AddPort', '', ()),
    ('CreateContainerInterface', 'sss', ('a', 'b', '100')), ('CreateContainerInterface', 'ssi', ('a', 'b', -1)),
    ('GetBlocksByHeight', 'xx', (1, 2)), ('GetBridgeTopology', 'v', (dbus.String('a'),)), ('DumpFlows', 'ay', (b'a',)),
]:
    assert refused(method, signature, *args) == theirs + 'InvalidArgs', (method, signature)
for method in ['Nothing', 'addPort', 'ADDPORT', 'ping2', 'AddPort_2', 'add_port_2']:
    assert refused(method, '', ) == theirs + 'UnknownMethod', method
try:
    bus.call_blocking('dev.ovs.PortAgent1', '/dev/ovs/PortAgent1', 'org.freedesktop.DBus.Properties', 'Set', 'ssv',
        ('dev.ovs.PortAgent1', 'LedgerHeight', dbus.UInt64(7)))
    raise SystemExit('a property was set')
except dbus.exceptions.DBusException as error:
    assert error.get_dbus_name() == theirs + 'UnknownProperty', error
";
    let words = ["-c", "import dbus"];
    if run(
        client(As::Root, "/usr/bin/python3", &words),
        Duration::from_secs(20),
    )
    .is_err()
    {
        println!("skipped: needs the package python3-dbus");
        return;
    }
    let hostile = || {
        let script = client(As::Root, "/usr/bin/python3", &["-c", HOSTILE]);
        run(script, Duration::from_secs(240)).expect("every one refused by its name");
    };
    hostile();
    // The allocator keeps some of what it was made to hold once; twice as much must not be twice as large.
    let memory = resident(stage.bus.service.pid());
    hostile();
    assert_eq!(changes(&stage), before, "nothing was changed anywhere");

    // A flood of questions that nobody waits for; somebody else is answered meanwhile.
    const FLOOD: &str = "\
import dbus, dbus.lowlevel, time
bus = dbus.SystemBus()
end = time.time() + 8
sent = 0
while time.time() < end:
    for _ in range(60):
        message = dbus.lowlevel.MethodCallMessage('dev.ovs.PortAgent1', '/dev/ovs/PortAgent1', 'dev.ovs.PortAgent1', 'GetSystemNetworkState')
        message.set_no_reply(True)
        bus.send_message(message)
        sent += 1
    bus.flush()
    time.sleep(0.01)
print(sent)
";
    let flooder = client(As::Blockhost, "/usr/bin/python3", &["-c", FLOOD]);
    let mut flooder = Service::start(&stage.world, "flood", flooder).expect("python starts");
    for _ in 0..20 {
        let state = asked(As::Root, "GetSystemNetworkState", &[]);
        assert_eq!(state["ovs_bridges"][0]["name"], "ovsbr0", "{state}");
    }
    let _ = flooder.wait_until("ending", Duration::from_secs(60), || false);
    let sent = std::fs::read_to_string(flooder.log()).expect("a log");
    assert!(
        sent.trim().parse::<u32>().is_ok_and(|sent| sent > 1000),
        "{sent}"
    );
    stage.bus.service.check().expect("it runs");
    assert_eq!(
        call(As::Root, "Ping", &[]).expect("answered").stdout.trim(),
        "s \"pong\""
    );
    let settled = || resident(stage.bus.service.pid()) < memory + (64 << 10);
    assert!(
        eventually(settled),
        "{} KiB, {memory} before",
        resident(stage.bus.service.pid())
    );

    // A killed service comes back to the same answers; the agent's death is an error with a name, not an end.
    stage
        .bus
        .restart_service(&stage.world)
        .expect("it starts again");
    asked(As::Root, "GetBridgeTopology", &["s", "ovsbr0"]);
    stage.agent.kill();
    // Its processes end one after the other: one that is on its way out may still take the call, and break it off.
    let absent = || refusal(As::Root, "DumpFlows", &["ovsbr0"]).contains("Error.Unavailable");
    assert!(eventually(absent), "the agent still answers");
    // What was seen a moment ago is told a moment longer.
    let gone = || asked(As::Root, "GetSystemNetworkState", &[])["ovs_bridges"].is_null();
    assert!(eventually(gone), "a dead agent's switch is still shown");
    let state = asked(As::Root, "GetSystemNetworkState", &[]);
    assert_eq!(state["ovs_bridges"], Value::Null);
    let refused = refusal(As::Root, "ListPorts", &[]);
    assert!(refused.contains("Error.Unavailable"), "{refused}");
    assert_eq!(
        state["problems"][0]["part"], "switch",
        "it is there and cannot be read: {state}"
    );
    let refused = refusal(As::Root, "AddPort", &["ovsbr0", "vi100"]);
    assert!(refused.contains("Error.Unavailable"), "{refused}");
    assert_eq!(
        asked(As::Root, "VerifyBlockchainIntegrity", &[])["ok"],
        true,
        "the ledger needs no agent"
    );
    stage
        .bus
        .service
        .stop(Duration::from_secs(20))
        .expect("ends");
}

/// Resident memory in KiB.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .expect("a size");
    line.trim()
        .trim_end_matches(" kB")
        .parse()
        .expect("a number")
}
