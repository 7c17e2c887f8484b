//! System calls by number, as somebody would make them who took a process over. The one unsafe function is here.
#![allow(unsafe_code)]
#![expect(
    clippy::cast_sign_loss,
    reason = "a register holds the bits of either sign"
)]

use std::ffi::CStr;

/// An argument of a system call.
#[derive(Clone, Copy)]
pub struct Arg(usize);

impl From<&CStr> for Arg {
    fn from(text: &CStr) -> Self {
        Self(text.as_ptr() as usize)
    }
}

impl From<i32> for Arg {
    fn from(number: i32) -> Self {
        Self(number as usize)
    }
}

impl From<u32> for Arg {
    fn from(number: u32) -> Self {
        Self(number as usize)
    }
}

impl From<i64> for Arg {
    fn from(number: i64) -> Self {
        Self(usize::from_ne_bytes(number.to_ne_bytes()))
    }
}

impl From<u64> for Arg {
    fn from(number: u64) -> Self {
        Self(usize::from_ne_bytes(number.to_ne_bytes()))
    }
}

impl From<usize> for Arg {
    fn from(number: usize) -> Self {
        Self(number)
    }
}

impl<T> From<&[T]> for Arg {
    fn from(memory: &[T]) -> Self {
        Self(memory.as_ptr() as usize)
    }
}

impl<T> From<&mut [T]> for Arg {
    fn from(memory: &mut [T]) -> Self {
        Self(memory.as_mut_ptr() as usize)
    }
}

/// Makes a system call; the error number where it fails.
pub fn call<const N: usize>(number: libc::c_long, arguments: [Arg; N]) -> Result<usize, i32> {
    let mut all = [0usize; 6];
    for (place, argument) in all.iter_mut().zip(arguments) {
        *place = argument.0;
    }
    let [a, b, c, d, e, f] = all;
    // SAFETY: pointers among the arguments come from live borrows of the caller, and the kernel checks every one it is
    // given. The calls of these attempts are meant to fail; this process ends right after its one attempt.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    usize::try_from(result).map_err(|_| {
        std::io::Error::last_os_error()
            .raw_os_error()
            .unwrap_or(255)
    })
}

/// The arguments of [`call`], each converted.
#[macro_export]
macro_rules! sys {
    ($number:expr $(, $argument:expr)* $(,)?) => {
        $crate::raw::call($number, [$($crate::raw::Arg::from($argument)),*])
    };
}
