"""What options accept, one by one and through -o."""

import click
import pytest

from qatqfs.cli import fstab
from qatqfs.cli import mount as mount_verb
from qatqfs.cli.exits import shown
from qatqfs.cli.tables import bytes_text, count_text, table
from qatqfs.cli.values import parse_dtype, parse_dtype_rule, parse_size, size_text
from qatqfs.codec import DType, Level
from qatqfs.store import OnCorrupt, StoreOptions

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("4096", 4096),
        ("64K", 64 * KIB),
        ("256k", 256 * KIB),
        ("256KiB", 256 * KIB),
        ("512M", 512 * MIB),
        ("1G", GIB),
        ("2 Gi", 2 * GIB),
        ("1T", 1 << 40),
    ],
)
def test_sizes_are_binary(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "K", "1.5G", "-1", "1KB", "1 X", "0x10", "1G1"])
def test_other_sizes_are_refused(text):
    with pytest.raises(click.BadParameter):
        parse_size(text)


@pytest.mark.parametrize(("size", "text"), [(0, "0"), (100, "100"), (256 * KIB, "256K"), (1025, "1025"), (GIB, "1G")])
def test_a_size_is_shown_as_it_is_read(size, text):
    assert size_text(size) == text
    assert parse_size(text) == size


def test_a_dtype_has_several_names():
    assert parse_dtype("BF16") is parse_dtype("bfloat16") is DType.BF16


def test_a_rule_is_split_at_its_last_equals_sign():
    assert parse_dtype_rule("a=b/*.bin=f16") == ("a=b/*.bin", DType.F16)


def test_bytes_for_people():
    assert [bytes_text(n) for n in (0, 1023, 1536, MIB, 5 << 50)] == ["0 B", "1023 B", "1.5 KiB", "1.0 MiB", "5.0 PiB"]


def test_counts_have_their_noun():
    assert [count_text(n, "file") for n in (0, 1, 1234)] == ["0 files", "1 file", "1,234 files"]


def test_columns_are_aligned():
    assert table([("A", "B"), ("long", "1"), ("x", "22")], "<>") == ["A      B", "long   1", "x     22"]


def test_what_is_not_printable_is_escaped():
    assert shown("a\nb\udcff\x1b\u2028") == "a\\nb\\xff\\x1b\\u2028"


@pytest.fixture
def mounted_with(qatqfs, monkeypatch, tmp_path):
    """Returns the MountOptions that a command line comes to."""
    seen = []
    monkeypatch.setattr(mount_verb, "mount", lambda options, tell: seen.append(options))

    def call(*arguments):
        seen.clear()
        result = qatqfs(*arguments)
        assert (result.status, result.err) == (0, ""), result.err
        (options,) = seen
        return options

    return call


def test_without_options_the_defaults_of_the_store_hold(mounted_with):
    options = mounted_with("mount", "/back", "/mnt")
    assert (options.backing, options.mountpoint) == ("/back", "/mnt")
    assert options.store == StoreOptions()
    assert options.foreground is options.allow_other is options.debug is False
    assert options.log_file is None and options.fuse_options == ()


EVERYTHING = StoreOptions(
    cache_size=GIB,
    chunk_size=64 * KIB,
    level=Level.SMALL,
    workers=3,
    dtype_rules=(("*.bin", DType.BF16), ("k/*", DType.F16)),
    raw_patterns=("*.json", "*.txt"),
    read_only=True,
    on_corrupt=OnCorrupt.ENOENT,
)


def test_every_option_reaches_the_mount(mounted_with):
    words = "--cache-size 1G --chunk-size 64K --level small --workers 3 --dtype *.bin=bf16 --dtype k/*=f16"
    words += " --raw *.json --raw *.txt --read-only --on-corrupt enoent --allow-other --log-file /log --debug -f"
    options = mounted_with("mount", *words.split(), "/back", "/mnt")
    assert options.store == EVERYTHING
    assert options.allow_other and options.debug and options.foreground
    assert options.log_file == "/log"


@pytest.mark.parametrize("separator", ["_", "-"])
def test_o_takes_the_same_options(mounted_with, separator):
    words = "cache_size=1G,chunk_size=64K,level=small,workers=3,dtype=*.bin=bf16,dtype=k/*=f16,raw=*.json,raw=*.txt"
    words += ",read_only,on_corrupt=enoent,allow_other,log_file=/log,debug"
    options = mounted_with("mount", "/back", "/mnt", "-o", words.replace("_", separator))
    assert options.store == EVERYTHING
    assert options.allow_other and options.debug
    assert options.log_file == "/log"


def test_a_call_of_mount_fuse3_is_a_mount(mounted_with):
    options = mounted_with("/back", "/mnt", "-o", "rw,level=small,dev,suid")
    assert (options.backing, options.mountpoint) == ("/back", "/mnt")
    assert options.store == StoreOptions(level=Level.SMALL)
    assert options.fuse_options == ("dev", "suid")


def test_a_directory_in_the_current_one_is_a_backing_too(mounted_with, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "back").mkdir()
    assert mounted_with("back", "mnt").backing == "back"


def test_userland_options_of_fstab_are_ignored(mounted_with):
    words = "defaults,auto,noauto,user,user=joe,nouser,users,nofail,_netdev,relatime,strictatime,nodiratime"
    words += ",comment=x y,x-systemd.automount,x-systemd.requires=/a,X-mount.mkdir=0755,uhelper=u,subtype=qatqfs"
    options = mounted_with("/back", "/mnt", "-o", words)
    assert options.store == StoreOptions() and options.fuse_options == ()


def test_options_of_the_kernel_are_passed_on(mounted_with):
    words = ("nodev", "nosuid", "noexec", "noatime", "sync", "dirsync", r'context="a:b\,c"')
    assert mounted_with("/back", "/mnt", "-o", ",".join(words)).fuse_options == words


@pytest.mark.parametrize(("words", "read_only"), [("ro", True), ("rw", False), ("ro,rw", False), ("rw,ro", True)])
def test_the_last_of_ro_and_rw_counts(mounted_with, words, read_only):
    assert mounted_with("/back", "/mnt", "-o", words).store.read_only is read_only


def test_o_may_be_repeated_and_the_last_value_counts(mounted_with):
    options = mounted_with("/back", "/mnt", "-o", "level=small,workers=2", "-o", "level=fast")
    assert options.store == StoreOptions(level=Level.FAST, workers=2)


def test_the_command_line_wins_over_o_and_its_rules_come_first(mounted_with):
    arguments = ["--level", "fast", "--dtype", "*=f16", "-o", "level=small,dtype=*=bf16"]
    options = mounted_with("mount", *arguments, "/back", "/mnt")
    assert options.store == StoreOptions(level=Level.FAST, dtype_rules=(("*", DType.F16), ("*", DType.BF16)))


def test_a_comma_in_a_value_is_escaped(mounted_with):
    assert mounted_with("/back", "/mnt", "-o", r"raw=a\,b,ro").store.raw_patterns == ("a,b",)


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("nosuch", "unknown mount option 'nosuch'"),
        ("nosuch=1", "unknown mount option 'nosuch'"),
        ("foreground", "unknown mount option 'foreground'"),
        ("fsname=x", "mount option 'fsname' cannot be used: the source"),
        ("max_read=4096", "mount option 'max_read' cannot be used: reads"),
        ("nodev=1", "unknown mount option 'nodev'"),
        ("read_only=1", "mount option 'read_only' takes no value"),
        ("cache_size", "mount option 'cache_size' needs a value"),
        ("cache_size=", "mount option 'cache_size' needs a value"),
        ("cache_size=much", "mount option 'cache_size': 'much' is not a size"),
        ("level=tiny", "mount option 'level': 'tiny' is not one of"),
        ("dtype=bf16", "mount option 'dtype': 'bf16' is not a rule"),
        ("dtype=*=int8", "mount option 'dtype': unknown dtype 'int8'"),
        ("workers=0", "mount option 'workers': 0 is not in the range"),
        ("chunk_size=6", "chunk size must be a multiple of 4"),
    ],
)
def test_other_options_are_refused_by_name(qatqfs, word, text):
    result = qatqfs("/back", "/mnt", "-o", f"rw,{word},noauto")
    assert result.status == 2
    assert text in result.error


def test_no_option_has_two_meanings():
    own = set(mount_verb._own_options(click.Context(mount_verb.command)))
    others = fstab._FOR_THE_KERNEL | fstab._FOR_THE_KERNEL_WITH_VALUE | fstab._IGNORED | {"ro", "rw"}
    assert not own & others
    assert own == {
        *("cache_size", "chunk_size", "level", "workers", "dtype", "raw", "read_only", "allow_other"),
        *("on_corrupt", "log_file", "debug", "commit_on_close", "durable_after"),
    }
