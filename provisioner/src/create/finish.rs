//! The end of a creation: the record, and the owner's token where a create is asked to mint it.

use super::{CreateError, Created, World};
use crate::lifecycle;
use crate::mint;
use crate::plan::CreateRequest;
use crate::record::{Reservation, Status, VmRecord};
use crate::throttle::Throttle;
use crate::time::Time;

/// Mints where that was asked for, and registers. After the mint nothing fails any more: a token on the chain stays, and the
/// caller has to hear of it.
pub(super) fn finish(
    world: &World<'_>,
    request: &CreateRequest,
    reservation: &Reservation,
) -> Result<Created, CreateError> {
    let (store, name) = (world.store, &request.name);
    let mut record = record(world, request, reservation);
    let mut remarks = Vec::new();
    if request.skip_mint {
        store.register_vm(&record)?;
        return Ok(Created { record, remarks });
    }
    let Some(secret) = &request.signature else {
        remarks.push("no token was minted: that takes --user-signature and --public-secret".into());
        store.register_vm(&record)?;
        return Ok(Created { record, remarks });
    };
    let username = &world.config.host.vm.username;
    let hostname = reservation
        .ipv6
        .map_or_else(|| reservation.ip.to_string(), |address| address.to_string());
    let encrypted = mint::encrypt_access(secret, &hostname, username)?;
    store.register_vm(&record)?;
    match mint::mint(request.wallet, &encrypted) {
        Ok(token) => {
            record.nft_token_id = Some(token);
            record.nft_minted = Some(true);
            let noted = store.mint_token(token, name);
            if let Err(e) = lifecycle::update_gecos(world, &record, request.wallet, token) {
                remarks.push(format!("the guest's GECOS field does not name token {token} yet: {e}; run blockhost-vm-update-gecos"));
            }
            match noted.and_then(|()| store.get(name)) {
                Ok(noted) => record = noted,
                Err(e) => remarks.push(format!("token {token} is minted, and the database does not say so: {e}; run blockhost-vm-update-gecos {name} {} --nft-id {token}", request.wallet)),
            }
            Ok(Created { record, remarks })
        }
        // Whether it is on the chain is not known: the machine is kept for the one who may hold its token.
        Err(e) => {
            remarks.push(format!("minting failed: {e}; the machine is kept, mint with blockhost-mint-nft and run blockhost-vm-update-gecos"));
            Ok(Created { record, remarks })
        }
    }
}

pub(super) fn record(
    world: &World<'_>,
    request: &CreateRequest,
    reservation: &Reservation,
) -> VmRecord {
    let now = Time::now();
    VmRecord {
        vm_name: request.name.clone(),
        vmid: reservation.vmid,
        ip_address: Some(reservation.ip),
        ipv6_address: reservation.ipv6,
        expires_at: now.plus_days(
            request
                .expiry_days
                .unwrap_or(world.config.db.default_expiry_days),
        ),
        owner: request.wallet.to_string(),
        status: Status::Active,
        created_at: now,
        purpose: request.purpose.clone(),
        wallet_address: Some(request.wallet),
        username: Some(world.config.host.vm.username.clone()),
        suspended_at: None,
        destroyed_at: None,
        nft_token_id: request.nft_token_id,
        nft_minted: None,
        gecos_synced: Some(request.nft_token_id.is_some() && !request.mock),
        // A database of several hosts has to know whose machine it is.
        node: match &world.config.db.server {
            Some(_) => Some(world.config.node()),
            None => world.config.host.node.clone(),
        },
        throttle: Throttle::default(),
        mock: request.mock,
        extra: serde_json::Map::new(),
    }
}
