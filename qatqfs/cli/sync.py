"""``qatqfs sync``: wait until what was written is in containers."""

import errno
import os

import click

from qatqfs.cli.exits import DONE, Refusal, shown
from qatqfs.cli.progress import waiting
from qatqfs.cli.running import mount_at
from qatqfs.mount import control


@click.command()
@click.argument("mountpoint", type=click.Path())
@click.argument("paths", nargs=-1, metavar="[PATH]...", type=click.Path())
def command(mountpoint: str, paths: tuple[str, ...]) -> int:
    """Return when what was written below MOUNTPOINT so far, or at and below each PATH, is in containers.

    Needed only by those who read the backing directory itself, to copy it say: programs that read through the
    mount see everything at once, and what is not in a container yet survives the daemon in staging. A relative
    PATH is looked for from the current directory if that leads into the mount, else below MOUNTPOINT.

    \b
    Examples:
      qatqfs sync /data/kv && rsync -a --exclude .qatqfs /data/kv.store/ backup/
      qatqfs sync /data/kv layer0 layer1/k.bf16
    """
    mountpoint = mount_at(mountpoint)
    with waiting("committing"):
        for path in [_in_mount(mountpoint, path) for path in paths] or [mountpoint]:
            _sync(path)
    return DONE


def _in_mount(mountpoint: str, path: str) -> str:
    """Return an absolute path in the mount; raises Refusal, OSError."""
    device = os.stat(mountpoint).st_dev
    candidates = [os.path.abspath(path)]
    if not os.path.isabs(path):
        candidates.append(os.path.join(mountpoint, path))
    for candidate in candidates:
        if os.path.exists(candidate) and os.stat(candidate).st_dev == device:
            return candidate
    if os.path.exists(candidates[0]):
        raise Refusal(f"{shown(path)}: is not in the mount at {shown(mountpoint)}")
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)


def _sync(path: str) -> None:
    try:
        control.request_sync(path)
    except OSError as err:
        if err.errno != errno.EROFS:  # a read-only mount has nothing to commit
            raise
