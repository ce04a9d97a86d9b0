"""Commits without a rename: the new container is copied into the inode of the old one.

Of several names a rename would leave all but one behind. A daemon that is not root may be kept from renaming: by the
mode of the directory, as after ``cp -a`` of a read-only tree, by its sticky bit, or because a new file could not be
given to the owner of the old one. So the finished container is made durable
as ``ID.redo`` first, and the log names it; then its bytes are copied over the old ones. If that is cut short by
whatever, recovery finds the redo file and builds on it as if it were the base. Meanwhile the file is served from
the redo file, and the content lock is held: writers of such a file wait for the copying, readers do not.
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
from qatqfs.store.staging.chunkmap import ChunkMap
from qatqfs.store.staging.draft import Draft
from qatqfs.store.staging.entry import StagingEntry
from qatqfs.store.staging.snapshot import SnapshotLost
from qatqfs.store.system.backing import BackingIO
from qatqfs.store.system.files import Fd, Identity

_COPY_BYTES = 64 << 20


def commit_in_place(tree: Tree, node: Node, entry: StagingEntry, draft: Draft) -> None:
    """Copy a complete draft of all of a node's content into its backing inode; the entry is done with then.

    Content lock held, namespace lock not. It is for the caller to drop the entry.

    Raises:
        OSError: it failed; the content is served from the redo file and staging, and can be committed again.
    """
    io, reading = tree.context.io, tree.context.reading
    where = entry.area.directory.number
    mtime_ns, atime_ns = entry.mtime_ns, os.fstat(node.fd.number).st_atime_ns
    ctime_ns = tree.commit_times.ctime_ns(node.attributes())
    io.fsync(draft.fd)
    entry.sync()
    target = node.fd if is_writable(node.fd) else tree.open_whatever_the_mode(node.fd)
    inode = Identity.of(target.number)
    if entry.exchange_draft(None) is not draft:
        raise SnapshotLost("the file was removed")  # who did that has thrown the draft away
    try:
        redo = ContainerFile(draft.fd, node.path or b"(unlinked)", reading)
        identity = Identity.of(draft.fd.number)
        becomes = dataclasses.replace(inode, size=identity.size, head=identity.head)
        if becomes != inode:  # else it would look as if it had become that, whatever is written next
            entry.log.intent(becomes)
        entry.log.intent(identity)
        if not os.fstat(draft.fd.number).st_mode & stat.S_IRUSR:
            io.chmod(draft.fd, stat.S_IRUSR | stat.S_IWUSR)  # it has the file's mode, and recovery is to read it
        # Only now: an earlier try may have been cut short, and then its redo file is all there is of what lies below.
        io.rename(where, draft.name, where, entry.entry_id + REDO)
    except OSError:
        draft.discard()
        raise
    # From here on recovery builds on the redo file, so the entry has to as well, before anything else can fail.
    old = entry.view.base
    entry.rebase(ChunkMap(entry.chunk_size, redo.length), redo, identity, redone_into=inode)
    for outdated in {c for c in (old, node.forget_container()) if c is not None and c is not redo}:
        outdated.retire()
    io.fsync_directory(where)
    _overwrite(io, entry, draft.fd, target, (atime_ns, mtime_ns))
    io.fsync(target)
    container = ContainerFile(node.fd, node.path or b"(unlinked)", reading)
    # The redo file must not be copied again over what is written from now on, even if it cannot be removed. With this
    # record the entry counts for nothing any more, so nothing may fail from here on.
    entry.log.done()
    with contextlib.suppress(OSError):  # a loss of power is one more copy of the same then
        entry.log.sync(entry.data)
    with tree.lock:
        node.committed_in_place(container)
        tree.commit_times.committed(os.fstat(target.number), ctime_ns)
        tree.rekey(node, node.key)


def _overwrite(io: BackingIO, entry: StagingEntry, redo: Fd, target: Fd, times_ns: tuple[int, int]) -> None:
    """Make a file's content that of a durable redo file, and nothing else different of it but the times.

    Raises:
        OSError: it failed, and may be done again.
    """
    mode = stat.S_IMODE(os.fstat(target.number).st_mode)
    try:
        copy_over(io, redo, target)
    except OSError as err:
        if err.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        entry.release_space()  # the redo file has all of it
        copy_over(io, redo, target)
    if stat.S_IMODE(os.fstat(target.number).st_mode) != mode:  # writing takes set-id bits away, unless one is root
        with contextlib.suppress(PermissionError):
            io.chmod(target, mode)
    with contextlib.suppress(PermissionError):  # another user's file was written now, as far as anybody can be told
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
