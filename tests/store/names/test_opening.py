"""Regular files of a store: what is written is read, at every moment of a file's life."""

import errno
import gc
import os
import stat
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from faults import FaultyIO
from helpers import content, noise, read, stored, wait_until_committed, write
from mounted import errno_of
from strict_decoder import canonical_layout, decode_container

from qatqfs.codec import DType
from qatqfs.store import Store, StoreOptions
from qatqfs.store.reading.container import ContainerFile
from qatqfs.store.system.backing import BackingIO
from qatqfs.store.system.files import Fd

CHUNK = 4096
SIZES = [0, 1, 2, 3, 4, 5, 6, CHUNK - 1, CHUNK, CHUNK + 1, CHUNK + 2, 3 * CHUNK + 5, 10 * CHUNK]


@pytest.mark.parametrize("size", SIZES)
def test_a_file_reads_the_same_from_staging_and_from_its_container(store: Store, backing: Path, size: int) -> None:
    data = content(size)
    with store.create(b"x") as handle:
        handle.write(data, 0)
        assert bytes(handle.read(size + 1, 0)) == data
        assert handle.attributes().size == size
    store.sync()
    assert read(store, b"x") == data
    assert store.stat(b"x").size == size
    assert (backing / "x.qatc").is_file()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", [b"x.f32", b"x.f16", b"x.bf16", b"x.bin"])
def test_every_container_satisfies_a_strict_decoder(store: Store, backing: Path, size: int, name: bytes) -> None:
    data = content(size)
    write(store, name, data)
    store.sync()
    decoded = decode_container((backing / f"{name.decode()}.qatc").read_bytes())
    assert canonical_layout(decoded)
    assert decoded.raw == data + bytes(-size % (4 if decoded.dtype == "f32" else 2))


def test_the_suffix_names_the_dtype(store: Store, backing: Path) -> None:
    for name, dtype in [(b"a.f32le", "f32"), (b"b.fp16", "f16"), (b"c.bf16", "bf16")]:
        write(store, name, content(64))
        store.sync()
        assert decode_container((backing / f"{name.decode()}.qatc").read_bytes()).dtype == dtype


def test_the_dtype_attribute_of_a_directory_above_wins(store: Store, backing: Path) -> None:
    store.mkdir(b"d")
    store.mkdir(b"d/e")
    store.setxattr(b"d", b"user.qatqfs.dtype", b"f16")
    write(store, b"d/e/x.f32", content(64))
    store.sync()
    assert decode_container((backing / "d/e/x.f32.qatc").read_bytes()).dtype == "f16"


def test_a_dtype_rule_beats_the_suffix(open_store, backing: Path) -> None:
    store = open_store(dtype_rules=(("*.f32", DType.BF16),))
    write(store, b"x.f32", content(64))
    store.sync()
    assert decode_container((backing / "x.f32.qatc").read_bytes()).dtype == "bf16"


def test_values_without_any_hint_get_the_width_that_encodes_smaller(store: Store, backing: Path) -> None:
    rng = np.random.default_rng(0)
    write(store, b"wide", rng.normal(size=50_000).astype("<f4").tobytes())
    narrow = rng.normal(size=100_000).astype("<f4").view("<u4") >> 16
    write(store, b"narrow", narrow.astype("<u2").tobytes())
    store.sync()
    assert decode_container((backing / "wide.qatc").read_bytes()).dtype == "f32"
    assert decode_container((backing / "narrow.qatc").read_bytes()).dtype == "bf16"


def test_a_new_file_is_a_whole_empty_container_before_create_returns(store: Store, backing: Path) -> None:
    with store.create(b"x", 0o640):
        assert decode_container((backing / "x.qatc").read_bytes()).raw == b""
        assert stat.S_IMODE((backing / "x.qatc").stat().st_mode) == 0o640


def test_writing_into_a_committed_file_keeps_the_rest(store: Store) -> None:
    data = bytearray(content(3 * CHUNK + 7))
    write(store, b"x", bytes(data))
    store.sync()
    with store.open(b"x", os.O_RDWR) as handle:
        handle.write(b"patch", CHUNK - 2)
        data[CHUNK - 2 : CHUNK + 3] = b"patch"
        assert bytes(handle.read(len(data), 0)) == data
    store.sync()
    assert read(store, b"x") == data


@pytest.mark.parametrize("size", [0, 1, CHUNK, CHUNK + 1, 2 * CHUNK, 5 * CHUNK + 3])
def test_truncating_a_committed_file(store: Store, size: int) -> None:
    data = content(3 * CHUNK)
    write(store, b"x", data)
    store.sync()
    store.truncate(b"x", size)
    expected = data[:size].ljust(size, b"\0")
    assert read(store, b"x") == expected
    store.sync()
    assert read(store, b"x") == expected


def test_a_hole_reads_as_zeros(store: Store) -> None:
    with store.create(b"x") as handle:
        handle.write(b"end", 5 * CHUNK)
    store.sync()
    assert read(store, b"x") == bytes(5 * CHUNK) + b"end"


def test_metadata_survives_a_commit_to_the_nanosecond(store: Store, backing: Path) -> None:
    with store.create(b"x", 0o600) as handle:
        handle.write(content(1000), 0)
        store.chmod(b"x", 0o751)
        store.setxattr(b"x", b"user.note", b"kept")
        store.utimens(b"x", 1_000_000_001, 2_000_000_003)
        before = store.stat(b"x")
    store.sync()
    after = store.stat(b"x")
    assert (backing / "x.qatc").stat().st_size != 72
    assert after.mode == before.mode == stat.S_IFREG | 0o751
    assert (after.atime_ns, after.mtime_ns) == (before.atime_ns, before.mtime_ns) == (1_000_000_001, 2_000_000_003)
    assert store.getxattr(b"x", b"user.note") == b"kept"


def test_the_mtime_is_that_of_the_last_write_not_of_the_commit(store: Store) -> None:
    with store.create(b"x") as handle:
        handle.write(b"data", 0)
        written = handle.attributes().mtime_ns
        time.sleep(0.05)
    store.sync()
    assert store.stat(b"x").mtime_ns == written


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give files away")
def test_owner_and_group_are_kept_by_a_commit(store: Store) -> None:
    with store.create(b"x", 0o644, (1234, 2345)) as handle:
        handle.write(b"data", 0)
    store.sync()
    found = store.stat(b"x")
    assert (found.uid, found.gid) == (1234, 2345)


def test_exclusive_creation_fails_where_a_file_is(store: Store, backing: Path) -> None:
    write(store, b"x", b"data")
    (backing / "raw").write_bytes(b"raw")
    for name in (b"x", b"raw"):
        assert errno_of(store.create, name, 0o644, None, os.O_RDWR | os.O_EXCL) == "EEXIST"


def test_a_deleted_file_stays_readable_and_writable_until_closed(store: Store, backing: Path) -> None:
    write(store, b"x", content(10_000))
    store.sync()
    handle = store.open(b"x", os.O_RDWR)
    store.unlink(b"x")
    assert errno_of(store.stat, b"x") == "ENOENT"
    assert bytes(handle.read(10_000, 0)) == content(10_000)
    handle.write(b"more", 10_000)
    assert bytes(handle.read(10, 10_000)) == b"more"
    handle.close()
    assert list((backing / ".qatqfs/staging").iterdir()) == []
    assert store.list_names() == []


def test_a_file_deleted_before_its_commit_is_never_encoded(store: Store) -> None:
    handle = store.create(b"x")
    handle.write(content(10_000), 0)
    store.unlink(b"x")
    handle.close()
    store.sync()
    assert "commits" not in store.stats()


def test_the_last_writers_close_commits_in_the_background(store: Store, backing: Path) -> None:
    write(store, b"x", content(10_000))
    wait_until_committed(store)
    assert stored(backing / "x.qatc") == content(10_000)
    assert list((backing / ".qatqfs/staging").iterdir()) == []


def test_an_open_file_is_committed_once_it_rests(open_store, backing: Path) -> None:
    store = open_store(idle_seconds=0.05)
    with store.create(b"x") as handle:
        handle.write(content(10_000), 0)
        wait_until_committed(store)
        assert stored(backing / "x.qatc") == content(10_000)
        handle.write(b"!", 0)
        assert bytes(handle.read(3, 0)) == b"!" + content(10_000)[1:3]


def test_a_file_too_large_for_its_chunks_is_refused(open_store) -> None:
    store = open_store(chunk_size=4)
    with store.create(b"x") as handle:
        assert errno_of(handle.write, b"x", 4 << 20) == "EFBIG"
        assert errno_of(handle.truncate, (4 << 20) + 1) == "EFBIG"


def test_a_handle_for_reading_cannot_write(store: Store) -> None:
    write(store, b"x", b"data")
    with store.open(b"x") as handle:
        assert errno_of(handle.write, b"x", 0) == "EBADF"


def test_a_read_only_store_writes_nothing(open_store, backing: Path) -> None:
    open_store().close()
    before = sorted(p.name for p in backing.rglob("*"))
    store = open_store(read_only=True)
    assert errno_of(store.create, b"x") == "EROFS"
    assert errno_of(store.mkdir, b"d") == "EROFS"
    assert sorted(p.name for p in backing.rglob("*")) == before


NO_O_TMPFILE = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.EIO)
NO_LINKS = (errno.EPERM, errno.EIO, errno.EOPNOTSUPP, errno.ENOSYS)


class PoorIO(BackingIO):
    """A filesystem that cannot do everything, and says so with errnos of its own choice."""

    def __init__(self, *, tmpfile: int = 0, link: int = 0, rename_flags: int = 0) -> None:
        self._errors = {"tmpfile": tmpfile, "link": link, "rename_flags": rename_flags}

    def _refuse(self, what: str) -> None:
        if self._errors[what]:
            raise OSError(self._errors[what], os.strerror(self._errors[what]))

    def open(self, directory: int, name: bytes, flags: int, mode: int = 0o600) -> Fd:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            self._refuse("tmpfile")
        return super().open(directory, name, flags, mode)

    def link_open(self, fd: Fd, directory: int, name: bytes) -> None:
        self._refuse("link")
        super().link_open(fd, directory, name)

    def rename(self, source_directory: int, source: bytes, directory: int, name: bytes, flags: int = 0) -> None:
        if flags:
            self._refuse("rename_flags")
        super().rename(source_directory, source, directory, name, flags)


@pytest.fixture(
    params=[
        *({"tmpfile": number} for number in NO_O_TMPFILE),
        *({"link": number} for number in NO_LINKS),
        *({"link": number, "tmpfile": errno.EOPNOTSUPP} for number in NO_LINKS),
        {"link": errno.EIO, "rename_flags": errno.EINVAL},
    ],
    ids=lambda given: " ".join(f"{what}:{errno.errorcode[number]}" for what, number in given.items()),
)
def poor_store(backing: Path, request: pytest.FixtureRequest) -> Iterator[Store]:
    """A store on a filesystem without O_TMPFILE, links or the flags of renameat2(2)."""
    with Store(backing, StoreOptions(chunk_size=4096, idle_seconds=3600.0), io=PoorIO(**request.param)) as store:
        yield store


def test_a_file_is_created_whole_also_without_o_tmpfile_links_or_rename_flags(poor_store: Store, backing: Path) -> None:
    (backing / "d").mkdir()
    os.chmod(backing / "d", 0o2755)
    with poor_store.create(b"d/x", 0o4640, (os.geteuid(), os.getegid())) as handle:
        assert decode_container((backing / "d/x.qatc").read_bytes()).raw == b""
        assert stat.S_IMODE((backing / "d/x.qatc").stat().st_mode) == 0o4640
        handle.write(content(100), 0)
    poor_store.sync()
    assert read(poor_store, b"d/x") == content(100)
    assert list((backing / ".qatqfs/staging").iterdir()) == []


def test_creating_replaces_nothing_also_without_o_tmpfile_links_or_rename_flags(
    poor_store: Store, backing: Path
) -> None:
    (backing / "x.qatc").symlink_to("elsewhere")
    assert errno_of(poor_store.create, b"x") == "EEXIST"
    assert os.readlink(backing / "x.qatc") == "elsewhere"
    assert list((backing / ".qatqfs/staging").iterdir()) == []


def test_a_raw_file_whose_name_is_too_long_for_a_container_stays_raw_when_it_is_emptied(
    store: Store, backing: Path
) -> None:
    name = b"n" * 253
    (backing / os.fsdecode(name)).write_bytes(b"raw")
    write(store, name, b"new")
    store.sync()
    assert (backing / os.fsdecode(name)).read_bytes() == b"new"
    store.truncate(name, 0)
    assert (backing / os.fsdecode(name)).read_bytes() == b""


def test_flushing_commits_only_where_close_is_to_wait(open_store, backing: Path) -> None:
    for waits in (False, True):
        store = open_store(commit_on_close=waits)
        with store.create(b"x") as handle:
            handle.write(b"%d" % waits * 1000, 0)
            store.flush(handle)
            assert handle.node.dirty is not waits
        store.close()
    assert decode_container((backing / "x.qatc").read_bytes()).raw == b"1" * 1000


def test_a_failed_commit_fails_the_close_that_waits_for_it_and_keeps_the_content(backing: Path) -> None:
    io = FaultyIO()
    with Store(backing, StoreOptions(idle_seconds=3600.0, commit_on_close=True), io=io) as store:
        handle = store.create(b"x")
        handle.write(b"data", 0)
        io.fail(errno.EIO, "rename")
        assert errno_of(store.flush, handle) == "EIO"
        assert bytes(handle.read(10, 0)) == b"data"
        io.heal()
        store.flush(handle)
        handle.close()
    assert decode_container((backing / "x.qatc").read_bytes()).raw == b"data"


def test_a_container_that_nobody_uses_any_more_gives_its_descriptor_back_at_once(store: Store, backing: Path) -> None:
    with store.create(b"x") as handle:
        handle.write(noise(3 * 4096), 0)
    store.sync()
    gc.collect()
    gc.disable()  # a cycle would keep it, and the space of a file that is gone
    try:
        found = ContainerFile(Fd(os.open(backing / "x.qatc", os.O_RDONLY)), b"x", store.tree.context.reading)
        number, still_there = found.fd.number, weakref.ref(found)
        assert len(found.read(0, 5)) == 5
        del found
        assert still_there() is None
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(number)
    finally:
        gc.enable()
