"""A short run of the fuzzing targets: what fuzzing has kept, and random changes of it from a fixed seed."""

import random

import pytest
from fuzz_lib import targets
from fuzz_lib.corpus import KEPT, seeds
from fuzz_lib.mutate import mutated
from fuzz_lib.targets import TARGETS

INPUTS = 3000


@pytest.mark.parametrize("name", TARGETS)
def test_no_known_input_does_harm(name: str) -> None:
    assert seeds(name)
    _check_all(name)


@pytest.mark.parametrize("name", TARGETS)
def test_no_random_change_of_a_known_input_does_harm(name: str) -> None:
    rng, known, target = random.Random(name), seeds(name), TARGETS[name]
    for _ in range(INPUTS):
        data = mutated(rng, known)
        target.check(data)
        target.check(target.repair(data))


def _forms_that_take_everything() -> list[targets._Form]:
    form = targets._FORMS[0]
    return [targets._Form(form.unit, lambda data, out: True, form.encode)] * 3


LIES = {
    "payload": ("decode_payloads", lambda *_, **__: [memoryview(b"x")] * 2),
    "container": ("verify_container", lambda *_, **__: iter(())),
    "index_frame": ("IndexFrame", None),
    "zstd_frames": ("decompress_exactly", lambda *_: None),
    "runs": ("_FORMS", None),
}


@pytest.mark.parametrize("name", TARGETS)
def test_a_parser_that_misbehaves_is_noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    attribute, lie = LIES[name]
    lie = {"index_frame": _LyingFrame, "runs": _forms_that_take_everything()}.get(name, lie)
    monkeypatch.setattr(targets, attribute, lie)
    with pytest.raises(AssertionError):
        _check_all(name)


def _check_all(name: str) -> None:
    for data in seeds(name):
        TARGETS[name].check(data)


class _LyingFrame:
    @staticmethod
    def parse(data: bytes) -> "_LyingFrame":
        return _LyingFrame()

    def pack(self) -> bytes:
        return b"something else"


def test_every_directory_of_kept_inputs_belongs_to_a_target() -> None:
    assert {path.name for path in KEPT.iterdir()} <= set(TARGETS)
