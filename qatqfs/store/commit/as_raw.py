"""Commits of files that a rule wants raw: the content itself takes the container's place, under its own name.

Programs write under a temporary name and rename; which rule a file meets is known when it is committed. The raw file
is complete before it gets its name. Then there are two files of the same logical name for a moment, with the same
mtime, so the container counts, and what staging has above it; then the container goes. A kill in between leaves a
dirty file that is committed again. A kill after that leaves a raw file that the log knows
(:mod:`qatqfs.store.commit.recovery`).
"""

import contextlib
import errno
import os
import stat

from qatqfs.store import paths
from qatqfs.store.attributes import key_of
from qatqfs.store.names.inode_copy import InodeMetadata, copy_metadata, has_all_of
from qatqfs.store.names.node import Node
from qatqfs.store.names.tree import Tree
from qatqfs.store.staging.area import NEW
from qatqfs.store.staging.chunkmap import chunks_of
from qatqfs.store.staging.entry import StagingEntry, no_space
from qatqfs.store.staging.snapshot import Snapshot, SnapshotLost
from qatqfs.store.system.files import Fd, Identity

EMPTY_CONTAINER_SIZE = 72  # format section 6: header, length, a payload of no values
_PIECE_BYTES = 4 << 20


def is_to_be_raw(tree: Tree, node: Node, path: bytes) -> bool:
    """Whether a rule wants a file raw, and nothing is in the way of that."""
    _, name = paths.split(path)
    if not tree.context.options.is_raw(path) or not paths.plain_name_allowed(name) or node.stays_container:
        return False
    st = os.fstat(node.fd.number)
    return st.st_nlink == 1 and not node.several_names and os.geteuid() in (0, st.st_uid)


def commit_raw(tree: Tree, node: Node, entry: StagingEntry, snapshot: Snapshot, path: bytes) -> bytes | None:
    """Put a snapshot under the file's own name in place of its container; the entry is done with then.

    Commit lock held. It is for the caller to drop the entry.

    Returns:
        The path that has to be made durable first, ``b""`` if none has to, or ``None`` if the commit has to be tried
        again.

    Raises:
        OSError: it failed; nothing has changed.
    """
    area, io = entry.area, tree.context.io
    name = area.new_id() + NEW
    fd = area.open_new(name)
    placed = False
    try:
        if not _write(entry, snapshot, fd):
            node.stay_container()
            return None
        durable = entry.log.synced or node.durable or os.fstat(node.fd.number).st_size > EMPTY_CONTAINER_SIZE
        metadata, mtime_ns = InodeMetadata.of(node.fd), entry.mtime_ns
        copy_metadata(io, metadata, fd, mtime_ns)
        if not has_all_of(metadata, fd):
            node.stay_container()
            return None
        if durable:
            io.fsync(fd)
        with node.lock, tree.lock:
            changed = entry.size != snapshot.size or snapshot.changed.held_bytes(1)
            if changed or snapshot.cancelled or node.staging is not entry or node.path != path:
                return None
            outdated = (metadata, mtime_ns) != (InodeMetadata.of(node.fd), entry.mtime_ns)
            if outdated:
                copy_metadata(io, InodeMetadata.of(node.fd), fd, entry.mtime_ns)
            synced_meanwhile = not durable and (entry.log.synced or node.durable)
            durable = durable or synced_meanwhile
            if durable and (outdated or synced_meanwhile):
                io.fsync(fd)
            placed = _swap(tree, node, entry, (name, fd), durable=durable)
        return (path if durable else b"") if placed else None
    finally:
        if not placed:
            area.abandon(name, fd)


def _write(entry: StagingEntry, snapshot: Snapshot, fd: Fd) -> bool:
    """Write a snapshot to an empty file, its holes as holes.

    Returns:
        ``False`` if a part of it is damaged: a container takes that over as it is, a raw file cannot.

    Raises:
        OSError: another failure.
    """
    io, size, chunk_size = entry.area.io, snapshot.size, snapshot.chunk_size
    io.ftruncate(fd, size)
    per_piece = max(1, _PIECE_BYTES // chunk_size)
    for first in range(0, chunks_of(size, chunk_size), per_piece):
        if snapshot.cancelled:
            raise SnapshotLost("the file was cut or removed")
        stop = min(first + per_piece, chunks_of(size, chunk_size))
        if all(map(snapshot.is_hole, range(first, stop))):
            continue
        try:
            data = snapshot.read(first * chunk_size, min(stop * chunk_size, size))
        except OSError as err:
            if err.errno != errno.EIO:
                raise
            return False
        if io.pwrite_all(fd, data, first * chunk_size) != len(data):
            raise no_space()
    return True


def _swap(tree: Tree, node: Node, entry: StagingEntry, draft: tuple[bytes, Fd], *, durable: bool) -> bool:
    """Let a complete raw file take the container's place, content and namespace lock held.

    Returns:
        ``False`` if it has to stay a container. Raises OSError; the container is there still.
    """
    assert node.path is not None
    io, times, old = tree.context.io, tree.commit_times, node.key
    (name, fd), staging = draft, entry.area.directory.number
    with contextlib.ExitStack() as stack:
        try:
            directory, _, plain = stack.enter_context(tree.parent(node.path))
            stored = paths.container_name(plain)
            there = os.stat(stored, dir_fd=directory, follow_symlinks=False)
        except OSError:  # gone, or not for us to change: the ordinary commit knows what to do
            there = None
        if there is None or key_of(there) != node.key or not _is_free(directory, plain):
            node.stay_container()
            return False
        ctime_ns = times.ctime_ns(node.attributes())
        try:
            entry.log.intent(Identity.of(fd.number))
            with times.unchanged(directory):
                io.rename(staging, name, directory, plain)
                if durable:  # or a loss of power might find neither
                    io.fsync_directory(directory)
                io.unlink(directory, stored)
        except OSError as err:
            with contextlib.suppress(OSError):
                if Identity.of(fd.number) == _identity_at(directory, plain):
                    io.unlink(directory, plain)  # the container stays, which hides it, until somebody sets its mtime
            with contextlib.suppress(OSError):
                entry.log.held(entry.view.chunks)
            if not isinstance(err, PermissionError):
                raise
            node.stay_container()
            return False
    times.committed(os.fstat(fd.number), ctime_ns)
    node.become_raw(fd, key_of(os.fstat(fd.number)))
    with contextlib.suppress(OSError):
        entry.log.done()
    tree.rekey(node, old)
    return True


def _identity_at(directory: int, name: bytes) -> Identity:
    fd = Fd(os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory))
    return Identity.of(fd.number)


def _is_free(directory: int, name: bytes) -> bool:
    """Whether a raw file may get a name: nobody has it, or a regular file that the container hides."""
    try:
        return stat.S_ISREG(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return True
