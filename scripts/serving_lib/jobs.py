"""Work that is done in a fresh process: a JSON object goes in, another comes out."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from demo_lib.session import DemoError

_SCRIPTS = Path(__file__).resolve().parent.parent
_JOB_SECONDS = 900
_ONE_THREAD = dict.fromkeys(("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"), "1")
"""For matrices: then sums are added in the same order in every process."""

Job = dict[str, Any]


def run_job(module: str, job: Job) -> Job:
    """Let a module of this package do a job in a process of its own, and return its outcome; DemoError if it fails.

    The process gets its own session, so that Ctrl-C reaches only this process, which then ends it.
    """
    done = subprocess.run(
        [sys.executable, "-m", f"serving_lib.{module}"],
        input=json.dumps(job).encode(),
        capture_output=True,
        env=os.environ | _ONE_THREAD | {"PYTHONPATH": str(_SCRIPTS)},
        start_new_session=True,
        timeout=_JOB_SECONDS,
    )
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip() or "no message"
        raise DemoError(f"the process that was to {job['do']} failed: {said.splitlines()[-1]}")
    outcome: Job = json.loads(done.stdout)
    return outcome


def do_job(work: Callable[[Job], Job]) -> None:
    """Do the job on standard input: the other side of :func:`run_job`."""
    json.dump(work(json.load(sys.stdin)), sys.stdout)
