//! The interface `dev.ovs.PortAgent1` as one table: each method under its name and under the snake_case name that the
//! interface was first designed with, then properties and signals. What a method does is in `desk`.

use std::sync::Arc;

use zbus::interface;
use zbus::message::Header;
use zbus::object_server::SignalEmitter;

use super::access::Caller;
use super::desk::Desk;
use super::error::BusError;

/// The one object.
pub(super) struct PortAgent {
    desk: Arc<Desk>,
}

impl PortAgent {
    pub(super) const fn new(desk: Arc<Desk>) -> Self {
        Self { desk }
    }
}

/// Writes both methods of each line, and what is not a method after them.
macro_rules! port_agent {
    ($($name:tt / $alias:tt = $method:ident / $second:ident ($($argument:ident: $type:ty),*) -> $answer:ty => $work:ident;)+) => {
        #[interface(name = "dev.ovs.PortAgent1", introspection_docs = false)]
        impl PortAgent {
            $(
                #[zbus(name = $name)]
                async fn $method(
                    &self,
                    #[zbus(header)] header: Header<'_>,
                    $($argument: $type),*
                ) -> Result<$answer, BusError> {
                    self.desk.$work(Caller::of(&header)?, $($argument),*).await
                }

                #[zbus(name = $alias)]
                async fn $second(
                    &self,
                    #[zbus(header)] header: Header<'_>,
                    $($argument: $type),*
                ) -> Result<$answer, BusError> {
                    self.desk.$work(Caller::of(&header)?, $($argument),*).await
                }
            )+

            #[zbus(property(emits_changed_signal = "const"))]
            async fn version(&self) -> &str {
                env!("CARGO_PKG_VERSION")
            }

            #[zbus(property(emits_changed_signal = "false"))]
            async fn backend(&self) -> String {
                self.desk.backend().await
            }

            #[zbus(property)]
            async fn ledger_height(&self) -> u64 {
                self.desk.height()
            }

            #[zbus(signal)]
            pub(super) async fn port_added(
                emitter: &SignalEmitter<'_>,
                bridge: &str,
                port: &str,
            ) -> zbus::Result<()>;

            #[zbus(signal)]
            pub(super) async fn port_removed(
                emitter: &SignalEmitter<'_>,
                bridge: &str,
                port: &str,
            ) -> zbus::Result<()>;

            #[zbus(signal)]
            pub(super) async fn state_applied(
                emitter: &SignalEmitter<'_>,
                plugin: &str,
                success: bool,
            ) -> zbus::Result<()>;

            #[zbus(signal)]
            pub(super) async fn ledger_appended(
                emitter: &SignalEmitter<'_>,
                height: u64,
                count: u64,
            ) -> zbus::Result<()>;
        }
    };
}

port_agent! {
    "Ping" / "ping" = ping / ping_2 () -> String => ping;
    "ListPorts" / "list_ports" = list_ports / list_ports_2 () -> Vec<(String, String, i64, u32)> => list_ports;
    "AddPort" / "add_port" = add_port / add_port_2 (bridge: String, port: String) -> i64 => add_port;
    "DelPort" / "del_port" = del_port / del_port_2 (bridge: String, port: String) -> () => del_port;
    "CreateContainerInterface" / "create_container_interface" = create_container / create_container_2
        (ifname: String, container: String, vmid: u32) -> String => create_container_interface;
    "RemoveContainerInterface" / "remove_container_interface" = remove_container / remove_container_2
        (ifname: String) -> () => remove_container_interface;
    "GetSystemNetworkState" / "get_system_network_state" = system_state / system_state_2 () -> String => system_state;
    "GetInterfaceBindings" / "get_interface_bindings" = bindings / bindings_2 () -> String => interface_bindings;
    "GetBridgeTopology" / "get_bridge_topology" = topology / topology_2 (bridge: String) -> String => bridge_topology;
    "ValidateBridgeConnectivity" / "validate_bridge_connectivity" = validate / validate_2
        (bridge: String) -> String => validate_bridge;
    "IntrospectNetworkManager" / "introspect_network_manager" = manager / manager_2 () -> String => network_manager;
    "ApplyState" / "apply_state" = apply_state / apply_state_2 (document: String) -> String => apply_state;
    "QueryState" / "query_state" = query_state / query_state_2 (plugin: String) -> String => query_state;
    "ShowDiff" / "show_diff" = show_diff / show_diff_2 (document: String) -> String => show_diff;
    "GetBlocksByCategory" / "get_blocks_by_category" = by_category / by_category_2
        (category: String) -> String => blocks_by_category;
    "GetBlocksByHeight" / "get_blocks_by_height" = by_height / by_height_2
        (first: u64, last: u64) -> String => blocks_by_height;
    "GetBlockByHash" / "get_block_by_hash" = by_hash / by_hash_2 (hash: String) -> String => block_by_hash;
    "VerifyBlockchainIntegrity" / "verify_blockchain_integrity" = verify / verify_2 () -> String => verify_integrity;
    "GetBlockchainStats" / "get_blockchain_stats" = stats / stats_2 () -> String => blockchain_stats;
    "DumpFlows" / "dump_flows" = dump_flows / dump_flows_2 (bridge: String) -> String => dump_flows;
}
