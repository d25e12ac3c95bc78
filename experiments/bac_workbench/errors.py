"""Which errors are the user's: their message is all that is shown. Anything else is a bug and shows its traceback."""

from __future__ import annotations

import errno

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from bac.errors import UserError as LibraryError
from diffusion_policy.common.errors import UserError as PolicyError

#: the roots of all errors about what was asked for, those of Hydra among them
USER_ERRORS = (LibraryError, PolicyError, HydraException, OmegaConfBaseException)
# What a machine refuses: the path is in the message, and whoever runs the command can free space or choose another one.
MACHINE = {
    errno.EACCES,
    errno.EDQUOT,
    errno.EEXIST,
    errno.EFBIG,
    errno.EIO,
    errno.EISDIR,
    errno.ELOOP,
    errno.EMFILE,
    errno.ENAMETOOLONG,
    errno.ENFILE,
    errno.ENOENT,
    errno.ENOMEM,
    errno.ENOSPC,
    errno.ENOTDIR,
    errno.ENOTEMPTY,
    errno.EPERM,
    errno.EROFS,
    errno.ETXTBSY,
}


def is_users(error: BaseException) -> bool:
    """Whether the message of `error` is all that a user needs: a wrong setting or file, or a machine that is full."""
    if isinstance(error, USER_ERRORS) or isinstance(error, MemoryError):
        return True
    return isinstance(error, OSError) and error.errno in MACHINE


def clearest(error: BaseException) -> BaseException:
    """What was raised while Hydra built something, in place of what Hydra says about it."""
    cause = error.__cause__
    if not isinstance(error, HydraException) or cause is None:
        return error
    return cause if is_users(cause) or isinstance(cause, ValueError) else error
