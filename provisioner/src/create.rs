//! Creating a machine: allocate, clone, configure, start, route, wait, register. Every step is noted in the reservation
//! before it is taken; a failure or a signal takes everything back; what a crash left behind is cleaned up by the next
//! run of the same name, or by the garbage collector.

mod finish;

use std::path::{Path, PathBuf};

use blockhost_proto::Layout;
use blockhost_proto::value::Vmid;
use serde_json::{Value, json};

use crate::backend::{Backend, BackendError, Machine};
use crate::cloudinit::{self, CloudInitError, Facts, Nonce};
use crate::config::Config;
use crate::lock::{LockError, ProvisioningLock};
use crate::mint::MintError;
use crate::plan::{self, CreateRequest, Plan, PlanError};
use crate::progress::Progress;
use crate::ready::wait_until_ready;
use crate::record::{Holder, Reservation, Step, VmRecord};
use crate::signals::Interrupt;
use crate::store::{Store, StoreError, Wanted};
use crate::terraform;
use crate::undo::{self, Report};

use finish::{finish, record};

/// Numbers that are tried where the backend has machines or containers on them that nobody told of.
const NUMBERS: u32 = 8;

/// A machine that was not created.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The root agent or the backend.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The user data.
    #[error(transparent)]
    CloudInit(#[from] CloudInitError),
    /// A value that the agent would refuse.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The access token.
    #[error(transparent)]
    Mint(#[from] MintError),
    /// The lock that says that a create is running.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// A file of ours.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// A number that nothing here knew of is in use at the backend.
    #[error("VM {vmid} could not be made: {source}")]
    NumberTaken {
        /// The number.
        vmid: Vmid,
        /// What the backend said.
        source: BackendError,
    },
    /// The template does not exist.
    #[error("there is no template VM {0}; build it with blockhost-build-template")]
    NoTemplate(Vmid),
    /// The guest did not become ready.
    #[error("VM {vmid} was not ready after {seconds} s: {last}; its console log says more")]
    NotReady {
        /// Its number.
        vmid: Vmid,
        /// How long was waited.
        seconds: u64,
        /// The last thing seen.
        last: String,
    },
    /// A signal.
    #[error("interrupted by a signal")]
    Interrupted,
    /// It failed, and this is what became of what had been done.
    #[error("{cause}")]
    Undone {
        /// Why it failed.
        cause: Box<CreateError>,
        /// What was taken back.
        report: Report,
    },
}

/// Where and with what a command works.
pub struct World<'a> {
    /// Paths.
    pub layout: &'a Layout,
    /// Settings.
    pub config: &'a Config,
    /// The database.
    pub store: &'a dyn Store,
    /// The machines' host.
    pub backend: &'a dyn Backend,
    /// Raised by signals.
    pub interrupt: &'a Interrupt,
}

/// What a create came to.
#[derive(Debug, Clone)]
pub struct Created {
    /// The machine.
    pub record: VmRecord,
    /// Things that are not as they should be, though the machine is there.
    pub remarks: Vec<String>,
}

impl Created {
    /// The one line for the caller.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let record = &self.record;
        let mut value = json!({
            "status": "ok",
            "vm_name": record.vm_name,
            "ip": record.ip_address,
            "ipv6": record.ipv6_address,
            "vmid": record.vmid,
            "nft_token_id": record.nft_token_id,
            "username": record.username,
        });
        if record.mock {
            value["mock"] = json!(true);
        }
        value
    }
}

fn wanted(request: &CreateRequest, avoid: Vec<Vmid>) -> Wanted {
    Wanted {
        name: request.name.clone(),
        vmid: request.vmid,
        ip: request.ip,
        ipv6: request.ipv6,
        avoid,
        holder: Holder::current(),
        mock: request.mock,
    }
}

fn make_plan(
    world: &World<'_>,
    request: &CreateRequest,
    reservation: &Reservation,
    nonce: Nonce,
) -> Result<Plan, CreateError> {
    let etc = world.layout.etc();
    let ssh_keys = plan::operator_keys(&etc.join("terraform_ssh_key.pub"))?;
    let facts = Facts {
        vm_name: request.name.clone(),
        username: world.config.host.vm.username.clone(),
        wallet: request.wallet,
        nft_token_id: request.nft_token_id,
        ssh_keys: ssh_keys.clone(),
        purpose: request.purpose.clone(),
        nonce,
    };
    let user_data = cloudinit::user_data(&etc, &request.source, &facts)?;
    Ok(plan::plan(
        request,
        world.config,
        reservation,
        &ssh_keys,
        user_data,
    )?)
}

/// What would be done. Nothing is changed, and no agent is needed: numbers of the backend's other machines are heeded
/// where it answers.
///
/// # Errors
/// [`CreateError`].
pub fn preview(world: &World<'_>, request: &CreateRequest) -> Result<Plan, CreateError> {
    let machines = world.backend.machines().unwrap_or_default();
    let avoid = numbers_in_use(world, &machines);
    let reservation = world.store.preview(&wanted(request, avoid))?;
    make_plan(world, request, &reservation, Nonce::placeholder())
}

/// Creates the machine and waits until it is ready.
///
/// # Errors
/// [`CreateError`]; whatever had been done is undone, see [`CreateError::Undone`].
pub fn create(
    world: &World<'_>,
    request: &CreateRequest,
    progress: &mut Progress,
) -> Result<Created, CreateError> {
    let _lock = ProvisioningLock::enter(world.layout)?;
    clean_up_after_crash(world, request, progress)?;

    progress.step("allocate number and addresses");
    let mut avoid = if request.mock {
        Vec::new()
    } else {
        let machines = world.backend.machines()?;
        let template = world.config.host.template_vmid;
        if !machines.iter().any(|machine| machine.vmid == template) {
            return Err(CreateError::NoTemplate(template));
        }
        numbers_in_use(world, &machines)
    };
    let mut tries = 0;
    loop {
        tries += 1;
        let reservation = world.store.allocate(&wanted(request, avoid.clone()))?;
        let cause = match build(world, request, &reservation, progress) {
            Ok(created) => {
                progress.finish();
                return Ok(created);
            }
            Err(cause) => cause,
        };
        progress.finish();
        progress.note(&format!("failed: {cause}; undoing"));
        let taken = matches!(&cause, CreateError::NumberTaken { .. });
        let report = take_back(world, request, taken);
        // A number that was asked for is not exchanged for another.
        if !taken || request.vmid.is_some() || !report.is_clean() || tries == NUMBERS {
            return Err(CreateError::Undone {
                cause: Box::new(cause),
                report,
            });
        }
        avoid.push(reservation.vmid);
        progress.step("allocate another number");
    }
}

/// Containers share their numbers with machines. Where nobody can say which there are, the clone will.
fn numbers_in_use(world: &World<'_>, machines: &[Machine]) -> Vec<Vmid> {
    let mut numbers: Vec<Vmid> = machines.iter().map(|machine| machine.vmid).collect();
    numbers.extend(world.backend.containers().unwrap_or_default());
    numbers
}

/// Takes everything back; what is under a `taken` number is not ours.
fn take_back(world: &World<'_>, request: &CreateRequest, taken: bool) -> Report {
    let mut report = match world.store.reservations() {
        Ok(list) => match list.into_iter().find(|r| r.name == request.name) {
            Some(mut reservation) => {
                reservation
                    .steps
                    .retain(|step| !taken || *step != Step::Clone);
                undo_one(world, &reservation)
            }
            None => Report::default(),
        },
        Err(e) => Report {
            failed: vec![format!("the reservation could not be read: {e}")],
            ..Report::default()
        },
    };
    if let Some(token) = request.nft_token_id
        && let Err(e) = world.store.fail_token(token, &request.name)
    {
        report
            .failed
            .push(format!("token {token} could not be given back: {e}"));
    }
    report
}

fn undo_one(world: &World<'_>, reservation: &Reservation) -> Report {
    let backend = (!reservation.mock).then_some(world.backend);
    undo::undo(
        world.store,
        backend,
        world.config,
        &world.layout.snippets(),
        reservation,
    )
}

/// A reservation of this name whose maker is dead: take back what it had begun, then start anew.
fn clean_up_after_crash(
    world: &World<'_>,
    request: &CreateRequest,
    progress: &Progress,
) -> Result<(), CreateError> {
    let left = world
        .store
        .reservations()?
        .into_iter()
        .find(|r| r.name == request.name);
    let Some(left) = left.filter(|r| !r.holder().is_alive()) else {
        return Ok(());
    };
    progress.note(&format!(
        "an earlier create of {} did not end (process {}); cleaning up",
        left.name, left.pid
    ));
    let undone = undo::undo_abandoned(
        world.store,
        world.backend,
        world.config,
        &world.layout.snippets(),
        &left,
    )?;
    // Somebody else was quicker; whether the name is free, the allocation says.
    let Some(report) = undone else {
        return Ok(());
    };
    for line in &report.undone {
        progress.note(&format!("  {line}"));
    }
    if report.is_clean() {
        return Ok(());
    }
    Err(CreateError::Undone {
        cause: Box::new(StoreError::InTheMaking(Box::new(left)).into()),
        report,
    })
}

fn build(
    world: &World<'_>,
    request: &CreateRequest,
    reservation: &Reservation,
    progress: &mut Progress,
) -> Result<Created, CreateError> {
    let (store, backend, name) = (world.store, world.backend, &request.name);
    let (vmid, bridge) = (reservation.vmid, &world.config.host.bridge);
    let nonce = Nonce::fresh().map_err(|source| CreateError::File {
        path: "/dev/urandom".into(),
        source,
    })?;
    let plan = make_plan(world, request, reservation, nonce.clone())?;
    if let Some(token) = request.nft_token_id {
        store.reserve_token(token, name)?;
    }
    if request.mock {
        let record = record(world, request, reservation);
        store.register_vm(&record)?;
        return Ok(Created {
            record,
            remarks: vec!["--mock: there is no machine behind this record".into()],
        });
    }
    let step = |step: Step| -> Result<(), CreateError> {
        stop_here(world)?;
        Ok(store.begin_step(name, step)?)
    };

    step(Step::Snippet)?;
    write_snippet(&world.layout.snippets(), &plan.snippet, &plan.user_data)?;

    progress.step(format!("clone template {} to VM {vmid}", plan.template));
    step(Step::Clone)?;
    backend
        .clone_machine(plan.template, vmid, name)
        .map_err(|source| {
            if source.is_taken() {
                CreateError::NumberTaken { vmid, source }
            } else {
                source.into()
            }
        })?;

    progress.step("configure");
    stop_here(world)?;
    backend.configure(vmid, plan.options.clone())?;
    backend.resize(vmid, Plan::boot_disk().map_err(PlanError::from)?, plan.disk)?;

    progress.step("start");
    step(Step::Start)?;
    backend.start(vmid)?;

    if let Some(address) = plan.route {
        progress.step(format!("route {address} to {bridge}"));
        step(Step::Route)?;
        backend.route_add(address, bridge)?;
    }

    progress.step("wait for the guest");
    wait_until_ready(world, vmid, &nonce, progress)?;

    progress.step("register");
    stop_here(world)?;
    let mut created = finish(world, request, reservation)?;
    if let Some(path) = terraform::place(world.config, name) {
        let resource = terraform::resource(request, world.config, &created.record);
        if let Err(e) = terraform::write(&path, &resource) {
            let path = path.display();
            created.remarks.push(format!(
                "the file for Terraform could not be written: {path}: {e}"
            ));
        }
    }
    Ok(created)
}

pub(crate) fn stop_here(world: &World<'_>) -> Result<(), CreateError> {
    if world.interrupt.is_raised() {
        Err(CreateError::Interrupted)
    } else {
        Ok(())
    }
}

/// Writes the cloud-init file so that the backend sees all of it or nothing. It holds no secret; the agent reads it.
fn write_snippet(directory: &Path, name: &str, text: &str) -> Result<(), CreateError> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let path = directory.join(name);
    let temporary = directory.join(format!(".{name}.new"));
    let write = || {
        std::fs::create_dir_all(directory)?;
        let mut file = std::fs::OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(true)
            .mode(0o644)
            .open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&temporary, &path)
    };
    write().map_err(|source| CreateError::File {
        path: path.clone(),
        source,
    })
}
