"""Random operations on a mount and on a plain directory: the same results, errnos and contents.

``scripts/stress`` does the same for longer, from several processes and with kills at any moment. A longer run of the
state machine: ``QATQFS_MODEL_EXAMPLES=500 scripts/test tests/mount/test_model.py --hypothesis-seed=1``.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from qatqfs.store.system.calls import RENAME_EXCHANGE, RENAME_NOREPLACE

SCRIPTS = Path(__file__).parent.parent.parent / "scripts"
sys.path.insert(0, str(SCRIPTS))

from stress_lib.mounting import StressMount, stress_mount  # noqa: E402
from stress_lib.pair import Difference, Pair  # noqa: E402
from stress_lib.session import links_possible  # noqa: E402

pytestmark = pytest.mark.fuse

EXAMPLES = int(os.environ.get("QATQFS_MODEL_EXAMPLES", "25"))
STEPS = int(os.environ.get("QATQFS_MODEL_STEPS", "40"))
KILLS = 2  # in one example: each takes as long as a new daemon takes to start

NAMES = st.sampled_from(["a", "b", "p", "p/a", "p/b", "q", "q/a"])
SLOTS = st.integers(0, 2)
SEEDS = st.integers(0, 1000)
SIZES = st.sampled_from([1, 100, 4096, 4097, 16_384, 50_000])
OFFSETS = st.sampled_from([0, 1, 4095, 4096, 16_383, 16_384, 16_385, 40_000, 100_000])
MODES = st.sampled_from([0o600, 0o644, 0o755, 0o4711])
KEYS = st.sampled_from(["user.one", "user.two"])
FLAGS = st.builds(
    lambda access, *extra: access | sum(extra),
    st.sampled_from([os.O_RDONLY, os.O_WRONLY, os.O_RDWR]),
    *(st.sampled_from([flag, 0]) for flag in (os.O_CREAT, os.O_TRUNC, os.O_APPEND, os.O_EXCL)),
)


def operation(name: str, *arguments: st.SearchStrategy[object]) -> st.SearchStrategy[list[object]]:
    return st.tuples(st.just(name), *arguments).map(list)


ON_FILES = st.one_of(
    operation("open", SLOTS, NAMES, FLAGS, MODES),
    operation("open", SLOTS, NAMES, st.just(os.O_RDWR | os.O_CREAT), MODES),
    operation("close", SLOTS),
    operation("read", SLOTS, SIZES),
    operation("pread", SLOTS, SIZES, OFFSETS),
    operation("write", SLOTS, SEEDS, SIZES),
    operation("pwrite", SLOTS, SEEDS, SIZES, OFFSETS),
    operation("lseek", SLOTS, OFFSETS, st.sampled_from([os.SEEK_SET, os.SEEK_CUR, os.SEEK_END])),
    operation("ftruncate", SLOTS, OFFSETS),
    operation("fsync", SLOTS),
    operation("fstat", SLOTS),
    operation("fchmod", SLOTS, MODES),
    operation("forget_pages", SLOTS),
    operation("map_store", SLOTS, SEEDS, SIZES, OFFSETS, st.booleans()),
    operation("map_load", SLOTS, SIZES, OFFSETS),
)


def on_names(*, links: bool) -> st.SearchStrategy[list[object]]:
    return st.one_of(
        operation("truncate", NAMES, OFFSETS),
        operation("rename", NAMES, NAMES),
        operation("rename2", NAMES, NAMES, st.sampled_from([RENAME_NOREPLACE, RENAME_EXCHANGE])),
        operation("unlink", NAMES),
        operation("mkdir", NAMES, st.just(0o755)),
        operation("rmdir", NAMES),
        operation("symlink", st.sampled_from(["nowhere", "a"]), NAMES),
        operation("readlink", NAMES),
        operation("readdir", NAMES),
        operation("stat", NAMES),
        operation("chmod", NAMES, MODES),
        operation("utime", NAMES, st.integers(0, 10**9), st.integers(0, 10**9)),
        operation("setxattr", NAMES, KEYS, SEEDS, SIZES.filter(lambda n: n <= 100), st.sampled_from([0, 1, 2])),
        operation("getxattr", NAMES, KEYS),
        operation("listxattr", NAMES),
        operation("removexattr", NAMES, KEYS),
        *([operation("link", NAMES, NAMES)] if links else []),
    )


def model(mount: StressMount, plain: Path, *, links: bool) -> Callable[[], RuleBasedStateMachine]:
    """The state machine of one mount."""

    class Model(RuleBasedStateMachine):
        examples = 0

        def __init__(self) -> None:
            super().__init__()
            Model.examples += 1
            self.pair = Pair(mount.path / f"e{Model.examples}", plain / f"e{Model.examples}")
            self.kills = 0

        def expect_no(self, difference: Difference | None) -> None:
            assert difference is None, str(difference)

        def do_all(self, operations: list[list[object]]) -> None:
            for each in operations:
                self.expect_no(self.pair.apply(each))

        @rule(operations=st.lists(ON_FILES, min_size=1, max_size=6))
        def use_open_files(self, operations: list[list[object]]) -> None:
            self.do_all(operations)

        @rule(operations=st.lists(on_names(links=links), min_size=1, max_size=4))
        def use_names(self, operations: list[list[object]]) -> None:
            self.do_all(operations)

        @rule()
        def commit(self) -> None:
            self.expect_no(self.pair.apply(["commit"]))

        @precondition(lambda self: self.kills < KILLS and len(self.pair.trace) > 10)
        @rule(kill=st.booleans())
        def lose_the_daemon(self, kill: bool) -> None:
            self.kills += 1
            self.pair.close()
            if kill:
                mount.kill()
                mount.start()
            else:
                mount.remount()
            self.expect_no(self.pair.compare_all())

        def teardown(self) -> None:
            self.pair.close()
            self.expect_no(self.pair.compare_all())
            assert not os.listdir(mount.backing / ".qatqfs" / "lost+found"), "nobody else was at BACKING"

    return Model


def test_a_mount_behaves_as_a_plain_directory_whatever_the_order_of_operations(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    with stress_mount(tmp_path) as mount:
        run_state_machine_as_test(
            model(mount, tmp_path / "plain", links=links_possible(mount)),
            settings=settings(
                max_examples=EXAMPLES,
                stateful_step_count=STEPS,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
            ),
        )


@pytest.mark.parametrize("kill", [[], ["--kill"]], ids=["undisturbed", "killed"])
def test_several_processes_at_once_do_not_disturb_each_other(tmp_path: Path, kill: list[str]) -> None:
    command = [sys.executable, SCRIPTS / "stress.py", "--seconds", "8", "--seed", "1", "--dir", tmp_path, *kill]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "seed 1" in result.stdout
