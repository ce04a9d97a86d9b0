"""The command as a whole: help, usage errors, statuses, and streams that go away."""

import importlib
import os
import re
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import pytest
from samples import bf16_bytes, tree

from qatqfs.cli import encode
from qatqfs.cli.main import cli, run

VERBS = ("mount", "umount", "sync", "encode", "decode", "estimate", "info", "verify", "stats")


def test_the_verbs_are_those_of_the_design(qatqfs):
    listed = re.findall(r"^  (\w+)  ", qatqfs("--help").out.partition("Commands:")[2], re.MULTILINE)
    assert tuple(listed) == VERBS


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_each_verb_has_usage_and_examples(qatqfs, verb):
    result = qatqfs(verb, "--help")
    assert result.status == 0 and result.err == ""
    assert f"Usage: qatqfs {verb}" in result.out
    assert re.search(rf"Examples?:\n +qatqfs {verb} ", result.out)


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_has_a_help_text(verb):
    command = cli.get_command(None, verb)
    assert [param.name for param in command.params if param.param_type_name == "option" and not param.help] == []


def test_the_help_of_mount_shows_the_defaults(qatqfs):
    out = " ".join(qatqfs("mount", "--help").out.split())
    for default in ("default: 512M", "default: 256K", "default: balanced", "default: eio"):
        assert default in out


@pytest.mark.parametrize(
    "arguments",
    [
        ("--version",),
        ("--help",),
        ("nonsense",),
        ("sync", "--help"),
        ("umount", "--help"),
        ("stats", "--help"),
        ("sync", "/"),
        ("umount", "/"),
        ("stats", "/"),
    ],
    ids=" ".join,
)
def test_what_needs_no_codec_starts_without_what_takes_long_to_import(heavy_imports, arguments):
    assert heavy_imports(*arguments) == set()


def test_completing_a_verb_imports_nothing_that_takes_long(heavy_imports):
    words = {"_QATQFS_COMPLETE": "zsh_complete", "COMP_WORDS": "qatqfs s", "COMP_CWORD": "1"}
    assert heavy_imports(**words) == set()


def test_a_verb_that_needs_the_codec_imports_it(heavy_imports):
    assert {"numpy", "zstandard"} <= heavy_imports("encode", "--help")


@pytest.mark.parametrize("package", ["qatqfs", "qatqfs.codec", "qatqfs.store", "qatqfs.mount"])
def test_every_name_that_a_package_offers_is_there(package):
    module = importlib.import_module(package)
    for name in [*getattr(module, "__all__", []), *(["__version__"] if package == "qatqfs" else [])]:
        assert getattr(module, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        module.nonsense  # noqa: B018


def test_the_version_is_that_of_the_distribution(qatqfs):
    assert qatqfs("--version").out == f"qatqfs {version('qatqfs')}\n"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((), "missing command (see qatqfs --help)"),
        (("compress", "x"), "no such command 'compress' (see qatqfs --help)"),
        (("encode",), "missing argument 'INPUT...' (see qatqfs encode --help)"),
        (("encode", "--nonsense", "x"), "no such option '--nonsense' (see qatqfs encode --help)"),
        (("encode", "x"), "give either -o OUT or --output-dir DIR (see qatqfs encode --help)"),
        (("encode", "x", "-o", "y", "--output-dir", "z"), "give either -o OUT or --output-dir DIR"),
        (("encode", "x", "y", "-o", "z"), "-o takes one input; use --output-dir DIR for several"),
        (("encode", "x", "-o", "y", "--level", "tiny"), "invalid value for '--level': 'tiny' is not one of"),
        (("encode", "x", "-o", "y", "--chunk-size", "6"), "chunk size must be a multiple of 4"),
        (("encode", "x", "-o", "y", "--chunk-size", "1KB"), "'1KB' is not a size; use for example 64K"),
        (("encode", "x", "-o", "y", "--dtype", "int8"), "unknown dtype 'int8', expected f32, f16 or bf16"),
        (("encode", "x", "-o", "y", "--workers", "0"), "0 is not in the range"),
        (("mount", "x"), "missing argument 'MOUNTPOINT' (see qatqfs mount --help)"),
        (("mount", "--dtype", "bf16", "x", "y"), "'bf16' is not a rule; use PATTERN=DTYPE"),
        (("umount", "."), "no qatqfs mount at"),
        (("sync", "."), "is not a qatqfs mount"),
        (("stats", "/"), "/: is not a qatqfs mount"),
        (("stats", "/nonexistent"), "/nonexistent: No such file or directory"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(qatqfs, arguments, text):
    result = qatqfs(*arguments)
    assert result.status == 2 and result.out == ""
    assert text in result.error


def test_a_fault_in_the_program_is_one_line_too(qatqfs, tmp_path, monkeypatch):
    def fail(*_):
        raise ZeroDivisionError("two\nlines")

    monkeypatch.delenv("QATQFS_TRACEBACK", raising=False)
    monkeypatch.setattr(encode, "plan", fail)
    result = qatqfs("encode", "x", "-o", tmp_path / "y")
    assert result.status == 2
    assert "ZeroDivisionError: two lines" in result.error


def test_running_out_of_memory_is_one_line(qatqfs, tmp_path, monkeypatch):
    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(encode, "plan", fail)
    result = qatqfs("encode", "x", "-o", tmp_path / "y")
    assert (result.status, result.error) == (2, "out of memory")


@pytest.mark.parametrize("name", [b"\xff\xfe.bin", b"two\nlines", "grüße\u2028.bin".encode()])
def test_a_file_name_of_any_bytes_is_one_line(tmp_path, process, name):
    path = os.path.join(os.fsencode(tmp_path), name)
    Path(os.fsdecode(path)).write_bytes(bf16_bytes(100))
    missing = process("info", os.fsdecode(path) + "-missing")
    assert missing.status == 2 and missing.error
    found = process("info", os.fsdecode(path))
    assert found.status == 0 and len(found.out.splitlines()) == 3


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)], ids=str
)
def test_a_signal_ends_it_quietly_and_leaves_nothing_half_written(tmp_path, number, status):
    source = tmp_path / "zeros"
    with source.open("wb") as file:
        file.truncate(1 << 36)  # hours of work
    output = tmp_path / "out"
    output.mkdir()
    arguments = ["encode", source, "--dtype", "f32", "--chunk-size", "1M", "-o", output / "zeros.qatc"]
    command = subprocess.Popen(
        [sys.executable, "-m", "qatqfs.cli", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # whoever runs the tests may ignore it
    )
    deadline = time.monotonic() + 30
    while not tree(output) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert tree(output), "it never started to write"
    command.send_signal(number)
    out, err = command.communicate(timeout=60)
    assert (command.returncode, out, err) == (status, b"", b"")
    assert tree(output) == set()


def test_shell_completion_knows_the_verbs(monkeypatch, capsys):
    monkeypatch.setenv("_QATQFS_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "qatqfs u")
    monkeypatch.setenv("COMP_CWORD", "1")
    assert run([]) == 0
    assert "umount" in capsys.readouterr().out
