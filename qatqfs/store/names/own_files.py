"""Opening files of this user whose mode, or that of a directory, forbids it; root needs none of this.

A daemon that is not root has to read and replace what it stored, whatever mode its user gave it. The owner of a file
may always change its mode. So the mode is changed, the file opened, and the mode put back at once. The namespace lock
is held meanwhile, so the change does not show through the mount.

While the mode is changed there is a note in staging: a file whose name says which inode has which mode, and whose
content says where it is. A starting store restores the modes that a killed daemon left changed.
"""

import contextlib
import errno
import fcntl
import logging
import os
import stat
from collections.abc import Iterator

from qatqfs.store.errors import os_error
from qatqfs.store.staging.area import MODE, StagingArea
from qatqfs.store.system.calls import birth_time_ns
from qatqfs.store.system.fd import Fd, open_entry, reopen

log = logging.getLogger(__name__)

_LONGEST_PATH = 1 << 20


def is_writable(fd: Fd) -> bool:
    """Whether a file was opened for reading and writing."""
    return fcntl.fcntl(fd.number, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDWR


@contextlib.contextmanager
def _more_allowed(area: StagingArea | None, fd: Fd, needed: int) -> Iterator[None]:
    """Add permission bits to a file or directory of this user for as long as the block runs.

    Raises:
        OSError: EACCES if it is another user's, or more bits would not help; and what the system reported otherwise.
    """
    st = os.fstat(fd.number)
    mode = stat.S_IMODE(st.st_mode)
    # A chmod by a process outside the file's group removes the set-group-id bit for good.
    loses_bit = mode & stat.S_ISGID and st.st_gid not in (os.getegid(), *os.getgroups())
    if area is None or st.st_uid != os.geteuid() or loses_bit or mode & needed == needed:
        raise os_error(errno.EACCES)
    note = b"%d-%d-%o%s" % (st.st_ino, birth_time_ns(fd.number), mode, MODE)
    area.remove(note)
    path = _path_below_backing(area, fd)
    if area.io.pwrite_all(area.open_exclusively(note), path, 0) != len(path):
        raise os_error(errno.ENOSPC)
    area.io.chmod(fd, mode | needed)
    try:
        yield
    finally:
        area.io.chmod(fd, mode)  # if that fails the note stays
        area.abandon(note)


def open_whatever_the_mode(area: StagingArea | None, fd: Fd) -> Fd:
    """Open a regular file for reading and writing, whatever its mode; namespace lock held.

    Args:
        area: of the store, ``None`` in a read-only one.
        fd: the file, as an O_PATH descriptor or better.

    Raises:
        OSError: EACCES for files of other users, and what the system reported otherwise.
    """
    with contextlib.suppress(PermissionError):
        return reopen(fd, os.O_RDWR)
    with _more_allowed(area, fd, stat.S_IRUSR | stat.S_IWUSR):
        return reopen(fd, os.O_RDWR)


def find_whatever_the_modes(area: StagingArea | None, root: Fd, path: bytes) -> Fd:
    """Open a stored path as an O_PATH descriptor, also below directories of this user that may not be searched.

    No symlink is followed.

    Raises:
        OSError: as :func:`open_whatever_the_mode`, and ENOENT, ENOTDIR.
    """
    fd = root
    for part in path.split(b"/"):
        try:
            fd = open_entry(fd.number, part)
        except PermissionError:
            with _more_allowed(area, fd, stat.S_IXUSR):
                fd = open_entry(fd.number, part)
    return fd


def put_modes_right(area: StagingArea, root: Fd) -> None:
    """Restore the modes of files and directories that an earlier daemon had changed when it was killed.

    If that fails, the note is kept for the next start, and the log says so.

    Args:
        area: where the notes are.
        root: BACKING.

    Raises:
        OSError: staging cannot be read.
    """
    for note in area.names_with(MODE):
        try:
            _put_right(area, root, note)
        except (FileNotFoundError, NotADirectoryError, ValueError):
            pass  # it is gone, or was never changed
        except OSError as err:
            log.error("%s: the mode of a file cannot be put right: %s", os.fsdecode(note), str(err))
            continue
        area.abandon(note)


def _put_right(area: StagingArea, root: Fd, note: bytes) -> None:
    fd = Fd(os.open(note, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=area.directory.number))
    path = os.read(fd.number, _LONGEST_PATH)
    if b".." in path.split(b"/"):
        raise ValueError("not below BACKING")
    ino, btime, mode = note.removesuffix(MODE).split(b"-")
    found = find_whatever_the_modes(area, root, path)
    if (os.fstat(found.number).st_ino, birth_time_ns(found.number)) == (int(ino), int(btime)):
        area.io.chmod(found, int(mode, 8))


def _path_below_backing(area: StagingArea, fd: Fd) -> bytes:
    there, here = (os.fsencode(os.readlink(one.proc_path)) for one in (fd, area.directory))
    return os.path.relpath(there, os.path.dirname(os.path.dirname(here)))
