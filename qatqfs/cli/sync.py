"""``qatqfs sync``: commit what was written, and wait until it is durable."""

import errno
import os
import stat

import click

from qatqfs.cli.exits import DONE, REFUSED, Refusal, complain, shown
from qatqfs.cli.progress import waiting
from qatqfs.cli.running import mount_around
from qatqfs.cli.tables import left_text
from qatqfs.mount import asking


@click.command()
@click.argument("mountpoint", type=click.Path())
@click.argument("paths", nargs=-1, metavar="[PATH]...", type=click.Path())
def command(mountpoint: str, paths: tuple[str, ...]) -> int:
    """Commit what was written below MOUNTPOINT, or at and below each PATH, and return when it is durable.

    Only programs that read the backing directory itself need this, for example to copy it. Programs that read
    through the mount see every write at once, and what is in no container yet survives the daemon in staging. A
    relative PATH counts from the current directory if that leads into the mount, else from MOUNTPOINT. Any other
    path in a mount may stand in place of MOUNTPOINT; it is then the first PATH.

    Exit status 2 means that a file could not be committed. There is one line for each such file, with the reason.
    The file stays in staging and is served from there, and the daemon tries again.

    \b
    Examples:
      qatqfs sync /data/kv && rsync -a --exclude .qatqfs /data/kv.store/ backup/
      qatqfs sync /data/kv layer0 layer1/k.bf16
      cd /data/kv/layer0 && qatqfs sync .
    """
    top, first = mount_around(mountpoint)
    wanted = [first] if first != top else []
    status = DONE
    with waiting("committing") as note:
        for path in [*wanted, *(_in_mount(top, path) for path in paths)] or [top]:
            for name, reason in asking.commit(_asked_at(path, top), top, lambda left: note(left_text(left))):
                status = REFUSED
                complain(f"{shown(name)}: could not be committed and stays in staging: {reason}")
    return status


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


def _asked_at(path: str, top: str) -> str:
    """Return the path at which the daemon is asked to commit: the top if the path itself cannot be used.

    The kernel lets a user ask only at files and directories that the user may read, and never at special files.
    """
    mode = os.stat(path).st_mode
    askable = (stat.S_ISREG(mode) or stat.S_ISDIR(mode)) and os.access(path, os.R_OK)
    return path if askable else top
