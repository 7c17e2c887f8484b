//! The start of every child: take the inherited descriptors, hear what to be, prepare, lock the door, work.
//! The order is the same for all roles and is the security of the whole: nothing from a client is read before the end.

use std::os::fd::OwnedFd;
use std::process::ExitCode;

use blockhost_ledger::dir::LedgerDir;
use blockhost_ledger::keys::Signers;
use blockhost_ledger::loss::Loss;
use blockhost_proto::catalog::Compartment;
use blockhost_proto::layout::Layout;

use crate::compartment::run::Runner;
use crate::compartment::{Handler, StartInfo, attach, image, keys, net, ovs, vm};
use crate::confine::profile::{Inputs, open_files, profile};
use crate::confine::{clear_inheritance, irrevocably_confine};
use crate::control::ControlSocket;
use crate::front::Front;
use crate::gate::Gate;
use crate::ipc::{Channel, Control, Report, Role, Start};
use crate::sys::spawn::FIRST_DESCRIPTOR;
use crate::{failpoint, log, log_error, sys};

/// Descriptors a role is started with: control first, then what the role needs.
#[expect(clippy::cast_possible_truncation, reason = "a handful of compartments")]
pub const fn descriptors(role: Role) -> i32 {
    match role {
        // Control, front, and one for each compartment.
        Role::Ledger => 2 + Role::COMPARTMENTS.len() as i32,
        // Control, gate; the front's sockets come by its control socket.
        Role::Front
        | Role::Net
        | Role::Ovs
        | Role::Keys
        | Role::Vm
        | Role::Image
        | Role::Attach => 2,
    }
}

/// Runs a role to its end.
pub fn main(role: Role) -> ExitCode {
    match live(role) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            log_error!("{reason}");
            ExitCode::FAILURE
        }
    }
}

fn live(role: Role) -> Result<(), String> {
    let count = descriptors(role);
    clear_inheritance(FIRST_DESCRIPTOR + count - 1, open_files(role)).map_err(|e| e.to_string())?;
    let mut inherited = Vec::new();
    for raw in FIRST_DESCRIPTOR..FIRST_DESCRIPTOR + count {
        inherited.push(sys::take_inherited(raw).map_err(|e| {
            format!("descriptor {raw} is missing ({e}); this subcommand is for the supervisor only")
        })?);
    }
    let mut inherited = inherited.into_iter();
    let mut next = || {
        inherited
            .next()
            .ok_or_else(|| "a descriptor is missing".to_owned())
    };
    let control = ControlSocket::from_fd(next()?);
    let start = match control
        .receive::<Control>(true)
        .map_err(|e| e.to_string())?
    {
        Some((Control::Start(start), _)) => *start,
        _ => return Err("the supervisor did not begin with the start message".to_owned()),
    };
    log::init(role.as_str(), start.journal);
    let layout = Layout::new(&start.root);
    failpoint::arm(role, layout.root());
    match role {
        Role::Front => {
            let gate = next()?;
            let abi = confine(role, &start, &layout, &[])?;
            let gate = Channel::new(gate).map_err(|e| e.to_string())?;
            let mut front =
                Front::new(start, clone(&control)?, gate, abi).map_err(|e| e.to_string())?;
            ready(&control, abi)?;
            drop(control);
            front.run().map_err(|e| e.to_string())
        }
        Role::Ledger => {
            let front = next()?;
            let mut compartments = Vec::new();
            for _ in Role::COMPARTMENTS {
                compartments.push(next()?);
            }
            let compartments = compartments
                .try_into()
                .map_err(|_| "a descriptor is missing".to_owned())?;
            let directory = LedgerDir::open(&layout.ledger()).map_err(|e| e.to_string())?;
            let signers = Signers::load_or_generate(&layout.ledger_keys(), &start.hostname)
                .map_err(|e| e.to_string())?;
            // Read where it can be read; the supervisor removes it when the ledger is open, so that it outlives a kill.
            let loss = Loss::load(&layout.ledger_keys())?;
            let abi = confine(role, &start, &layout, &[])?;
            let gate = Gate::open(
                &start,
                directory,
                signers,
                loss.as_ref(),
                clone(&control)?,
                front,
                compartments,
            )
            // Its channels are closed by now, and the others notice before this process has said why.
            .inspect_err(|_| failpoint::dally("ledger-refused"))?;
            ready(&control, abi)?;
            drop(control);
            gate.run().map_err(|e| e.to_string())
        }
        Role::Net | Role::Ovs | Role::Keys | Role::Vm | Role::Image | Role::Attach => {
            let channel = next()?;
            let (compartment, handler) = prepare(role, &start, &layout)?;
            let abi = confine(role, &start, &layout, &handler.programs())?;
            let runner = Runner::new(
                compartment,
                handler,
                layout,
                &start,
                channel,
                clone(&control)?,
            )
            .map_err(|e| e.to_string())?;
            ready(&control, abi)?;
            drop(control);
            runner.run().map_err(|e| e.to_string())
        }
    }
}

fn prepare(
    role: Role,
    start: &Start,
    layout: &Layout,
) -> Result<(Compartment, Box<dyn Handler>), String> {
    let info = StartInfo {
        layout,
        policy: &start.policy,
        identities: start.identities,
        backend: start.backend,
    };
    Ok(match role {
        Role::Net => (Compartment::Net, net::prepare(&info)?),
        Role::Ovs => (Compartment::Ovs, ovs::prepare(&info)?),
        Role::Keys => (Compartment::Keys, keys::prepare(&info)?),
        Role::Vm => (Compartment::Vm, vm::prepare(&info)?),
        Role::Image => (Compartment::Image, image::prepare(&info)?),
        Role::Attach => (Compartment::Attach, attach::prepare(&info)?),
        Role::Front | Role::Ledger => return Err(format!("{} is no compartment", role.as_str())),
    })
}

fn confine(
    role: Role,
    start: &Start,
    layout: &Layout,
    programs: &[std::path::PathBuf],
) -> Result<u32, String> {
    let inputs = Inputs {
        layout,
        identities: start.identities,
        backend: start.backend,
        landlock: start.policy.landlock,
        wireguard: start.policy.wireguard,
        programs,
        image_dirs: &start.policy.allow.image_dirs,
        template_dirs: &start.policy.allow.template_dirs,
        image_network: start.policy.images.network,
        attach: start.policy.containers.attach,
    };
    let abi = irrevocably_confine(&profile(role, &inputs)).map_err(|e| e.to_string())?;
    failpoint::confined(role, start);
    Ok(abi)
}

fn clone(control: &ControlSocket) -> Result<ControlSocket, String> {
    use std::os::fd::AsFd;
    let copy: OwnedFd = control
        .as_fd()
        .try_clone_to_owned()
        .map_err(|e| format!("control socket: {e}"))?;
    Ok(ControlSocket::from_fd(copy))
}

fn ready(control: &ControlSocket, landlock_abi: u32) -> Result<(), String> {
    control
        .send(&Report::Ready { landlock_abi }, None)
        .map_err(|e| format!("supervisor: {e}"))
}
