//! Containers of another manager (Docker, Podman) that carry a label of a network of ours: found at the manager's socket,
//! given a wire into that network's bridge, rid of it when they stop. What the manager says is read in [`api`] and [`manager`],
//! what follows from it is planned in [`plan`], which is pure, and done through the root agent in [`run`]; [`follow`] does it
//! again whenever something happens. Called by `blockhost net containers`.

pub mod api;
pub mod follow;
pub mod manager;
pub mod plan;
pub mod run;
