// SPDX-License-Identifier: GPL-2.0

//! Error codes that `kernel::error::code` of Linux 7.2 does not have.

use kernel::prelude::*;

/// Returns `EOPNOTSUPP`: operation not supported.
pub(crate) fn eopnotsupp() -> Error {
    Error::from_errno(-(kernel::bindings::EOPNOTSUPP as c_int))
}

/// Returns `EHWPOISON`: the memory has a hardware error.
pub(crate) fn ehwpoison() -> Error {
    Error::from_errno(-(kernel::bindings::EHWPOISON as c_int))
}
