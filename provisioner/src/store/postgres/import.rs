//! What a file database holds, taken over into a server: `blockhost-vm-db import`.

use postgres::types::Json;

use super::rows::{hold, insert_reservation, signed, write_token};
use super::{Identity, PostgresStore};
use crate::record::Status;
use crate::store::StoreError;
use crate::store::json::Contents;

impl PostgresStore {
    /// Takes over what a file database of the host `here` holds, in one transaction, into a database without machines. From
    /// then on each record names that host: one that names none would be nobody's.
    ///
    /// # Errors
    /// [`StoreError::Unsupported`] when machines are there already, and where two machines of the file hold the same.
    pub fn import(&self, contents: &Contents, here: &Identity) -> Result<usize, StoreError> {
        self.change(|tx| {
            tx.query_one("SELECT next_vmid FROM blockhost.pool FOR UPDATE", &[])?;
            let there: i64 = tx
                .query_one(
                    "SELECT (SELECT count(*) FROM blockhost.machine) + (SELECT count(*) FROM blockhost.holding) + (SELECT count(*) FROM blockhost.token)",
                    &[],
                )?
                .try_get(0)?;
            if there > 0 {
                return Err(StoreError::Unsupported {
                    problem: format!("{} is not empty; nothing was taken over", self.shown()),
                }
                .into());
            }
            tx.execute(
                "UPDATE blockhost.pool SET next_vmid = $1",
                &[&signed(contents.next_vmid)],
            )?;
            let insert = tx.prepare("INSERT INTO blockhost.machine (name, record) VALUES ($1, $2)")?;
            for vm in &contents.vms {
                let mut vm = vm.clone();
                vm.node.get_or_insert_with(|| here.node.clone());
                tx.execute(&insert, &[&vm.vm_name.as_str(), &Json(&vm)])?;
                if vm.status != Status::Destroyed {
                    hold(tx, Some(&vm.vm_name), Some(vm.vmid.get()), vm.ip_address, vm.ipv6_address)?;
                }
            }
            for reservation in &contents.reservations {
                let mut reservation = reservation.clone();
                reservation.node.clone_from(&here.host_name);
                insert_reservation(tx, &reservation)?;
            }
            for ip in &contents.other_ips {
                hold(tx, None, None, Some(*ip), None)?;
            }
            for ipv6 in &contents.other_ipv6 {
                hold(tx, None, None, None, Some(*ipv6))?;
            }
            for (token, held) in &contents.tokens {
                write_token(tx, *token, held)?;
            }
            Ok(contents.vms.len())
        })
    }
}
