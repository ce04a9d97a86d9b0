"""Standard descriptors that whoever calls has closed."""

import os
import shlex
import subprocess
import sys

import pytest
from samples import bf16_bytes
from strict_decoder import decode_container

TELL = (
    "import os; from qatqfs.cli.descriptors import fill_standard_descriptors; fill_standard_descriptors();"
    "opened = os.open('opened', os.O_CREAT | os.O_WRONLY);"
    "os.write(opened, ' '.join([str(opened), *(os.readlink(f'/proc/self/fd/{n}') for n in (0, 1, 2))]).encode())"
)


@pytest.mark.parametrize(
    ("closed", "left"), [("<&-", {1, 2}), (">&-", {0, 2}), ("2>&-", {0, 1}), ("<&- >&- 2>&-", set())]
)
def test_a_file_never_gets_the_number_of_a_closed_standard_descriptor(tmp_path, closed, left):
    redirected = " ".join(f"{number}{'<' if number == 0 else '>'}/dev/zero" for number in sorted(left))
    command = f"{shlex.join([sys.executable, '-c', TELL])} {redirected} {closed}"
    subprocess.run(["sh", "-c", command], check=True, timeout=60, cwd=tmp_path)
    number, *targets = (tmp_path / "opened").read_text().split()
    assert int(number) > 2
    assert targets == ["/dev/zero" if n in left else os.devnull for n in (0, 1, 2)]


def test_encoding_works_with_all_of_them_closed(tmp_path):
    content = bf16_bytes(1000)
    source, output = tmp_path / "x.bf16", tmp_path / "x.bf16.qatc"
    source.write_bytes(content)
    command = [sys.executable, "-m", "qatqfs.cli", "encode", "-o", str(output), str(source)]
    subprocess.run(["sh", "-c", f"{shlex.join(command)} <&- >&- 2>&-"], check=True, timeout=60)
    assert decode_container(output.read_bytes()).raw == content
