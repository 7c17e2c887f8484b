//! Whose money it is and how much: amounts, names of wallets and tokens, the address book. Nothing here sends anything;
//! that is [`crate::funds`]'s.

pub mod amount;
pub mod book;
pub mod party;
pub mod token;

pub use amount::{AmountError, Decimal};
pub use book::{Book, BookError};
pub use party::{Party, PartyError};
pub use token::{Token, TokenError, TokenName};
