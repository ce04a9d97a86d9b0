"""Commits without a rename: the new container is copied into the inode of the old one.

If a file has several names, a rename would replace only one of them. A daemon that is not root may be unable to rename:
because of the mode of the directory, as after ``cp -a`` of a read-only tree, because of its sticky bit, or because a
new file could not be given to the owner of the old one. In these cases the complete container is made durable as
``ID.redo``, and the log names it. Then its bytes are copied over the old ones. If the copy is cut short, recovery finds
the redo file and builds on it as if it were the base. Meanwhile the file is served from the redo file, and the content
lock is held: writers of such a file wait for the copy, readers do not.
"""

import contextlib
import dataclasses
import errno
import os
import stat

from qatqfs.store.names.node import Node
from qatqfs.store.names.own_files import is_writable
from qatqfs.store.names.tree import Tree
from qatqfs.store.reading.container import ContainerFile
from qatqfs.store.staging.area import REDO
from qatqfs.store.staging.draft import Draft
from qatqfs.store.staging.entry import StagingEntry
from qatqfs.store.staging.snapshot import SnapshotLost
from qatqfs.store.staging.view import ChunkMap
from qatqfs.store.system.backing import BackingIO
from qatqfs.store.system.fd import Fd
from qatqfs.store.system.identity import Identity

_COPY_BYTES = 64 << 20


def commit_in_place(tree: Tree, node: Node, entry: StagingEntry, draft: Draft) -> None:
    """Copy a complete draft of all of a node's content into its backing inode. The caller removes the entry then.

    The content lock is held, the namespace lock is not.

    Raises:
        OSError: it failed; the content is served from the redo file and staging, and can be committed again.
    """
    io, reading = tree.context.io, tree.context.reading
    where = entry.area.directory.number
    mtime_ns, atime_ns = entry.mtime_ns, os.fstat(node.fd.number).st_atime_ns
    ctime_ns = tree.commit_times.ctime_ns(node.attributes())
    io.fsync(draft.fd)
    entry.fsync()
    target = node.fd if is_writable(node.fd) else tree.open_whatever_the_mode(node.fd)
    inode = Identity.of(target.number)
    if entry.exchange_draft(None) is not draft:
        raise SnapshotLost("the file was removed")  # and the draft was discarded with it
    try:
        redo = ContainerFile(draft.fd, node.path or b"(unlinked)", reading)
        identity = Identity.of(draft.fd.number)
        becomes = dataclasses.replace(inode, size=identity.size, head=identity.head)
        if becomes != inode:  # else the inode would look as if it were that already
            entry.log.intent(becomes)
        entry.log.intent(identity)
        if not os.fstat(draft.fd.number).st_mode & stat.S_IRUSR:
            io.chmod(draft.fd, stat.S_IRUSR | stat.S_IWUSR)  # it has the file's mode, and recovery has to read it
        # Only now: if an earlier try was cut short, its redo file has the only whole copy of the base.
        io.rename(where, draft.name, where, entry.entry_id + REDO)
    except OSError:
        draft.abandon()
        raise
    # From here on recovery builds on the redo file. So the entry has to as well, before anything else can fail.
    old = entry.view.base
    entry.rebase(ChunkMap(entry.chunk_size, redo.length), redo, identity, redone_into=inode)
    for outdated in {c for c in (old, node.forget_container()) if c is not None and c is not redo}:
        outdated.retire()
    io.fsync_directory(where)
    _overwrite(io, entry, draft.fd, target, (atime_ns, mtime_ns))
    io.fsync(target)
    container = ContainerFile(node.fd, node.path or b"(unlinked)", reading)
    # The redo file must not be copied over what is written from now on, even if it cannot be removed. This record ends
    # the entry, so nothing may fail from here on.
    entry.log.done()
    with contextlib.suppress(OSError):  # without it, a loss of power makes recovery copy the same bytes again
        entry.log.fsync(entry.data)
    with tree.lock:
        node.committed_in_place(container)
        tree.commit_times.committed(os.fstat(target.number), ctime_ns)
        tree.rekey(node, node.key)


def _overwrite(io: BackingIO, entry: StagingEntry, redo: Fd, target: Fd, times_ns: tuple[int, int]) -> None:
    """Make a file's content that of a durable redo file, and set its times; mode and owner stay.

    Raises:
        OSError: it failed, and may be tried again.
    """
    mode = stat.S_IMODE(os.fstat(target.number).st_mode)
    try:
        copy_over(io, redo, target)
    except OSError as err:
        if err.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        entry.release_space()  # the redo file has all of it
        copy_over(io, redo, target)
    if stat.S_IMODE(os.fstat(target.number).st_mode) != mode:  # a write clears set-id bits, unless one is root
        with contextlib.suppress(PermissionError):
            io.chmod(target, mode)
    with contextlib.suppress(PermissionError):  # the times of another user's file cannot be set
        io.set_times(target, *times_ns)


def copy_over(io: BackingIO, source: Fd, target: Fd) -> None:
    """Make a file's content that of another; raises OSError."""
    size = os.fstat(source.number).st_size
    position = 0
    while position < size:
        done = io.copy_range(source, position, target, position, min(_COPY_BYTES, size - position))
        if done == 0:
            raise OSError(errno.EIO, "a container that was complete is not any more")
        position += done
    io.ftruncate(target, size)
