//! What an operator may not have meant: warnings about a policy that is valid.
