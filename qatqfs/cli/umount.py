"""``qatqfs umount``: unmount and wait for the daemon."""

from collections.abc import Callable

import click

from qatqfs.cli.exits import DONE, REFUSED, complain, describe
from qatqfs.cli.progress import waiting
from qatqfs.cli.running import Untouched
from qatqfs.cli.tables import bytes_text, count_text
from qatqfs.mount.asking import Pending
from qatqfs.mount.errors import MountError
from qatqfs.mount.unmounting import StillMounted, unmount_and_wait

STILL_MOUNTED = 3
"""Exit status: unmounted, but the daemon goes on."""


@click.command()
@click.argument("mountpoints", nargs=-1, required=True, metavar="MOUNTPOINT...", type=Untouched())
@click.option("-l", "--lazy", is_flag=True, help="Unmount also what is in use; its daemon ends with the last user.")
@click.option(
    "-f",
    "--force",
    is_flag=True,
    help="Cut the connection to a daemon that does not answer. What programs do in the mount fails from then on; what"
    " was acknowledged is committed by the daemon, or recovered by the next mount.",
)
def command(mountpoints: tuple[str, ...], lazy: bool, force: bool) -> int:
    """Unmount each MOUNTPOINT and return when everything written to it is in containers and the daemon is gone.

    umount(8) and "fusermount3 -u" unmount as well, but return while the daemon is still committing. The mount
    must not be in use, unless --lazy is given. A mount whose daemon has died is removed; nothing it had
    acknowledged is lost, but what waits in staging is committed by the next mount only.

    A mount may also be held by another mount namespace, a container's for example, or by a bind mount. Then its
    daemon goes on after MOUNTPOINT is unmounted: there is a line that says who holds it, and the exit status is 3.
    What was written until then is in containers. Ctrl-C ends the command and not the daemon.

    \b
    Exit status:
      0  everything is committed and the daemon is gone
      2  it was not unmounted, or not everything is committed; what is not is in staging
      3  it was unmounted, but the mount is still held elsewhere
    \b
    Examples:
      qatqfs umount /data/kv
      qatqfs umount --lazy /data/kv /data/weights
    """
    status = DONE
    for mountpoint in mountpoints:
        try:
            with waiting("committing") as note:

                def show(left: Pending, note: Callable[[str], None] = note) -> None:
                    note(left_text(left))

                unmount_and_wait(mountpoint, complain, lazy=lazy, force=force, progress=show)
        except StillMounted as err:
            complain(describe(err))
            status = status or STILL_MOUNTED
        except MountError as err:
            complain(describe(err))
            status = REFUSED
    return status


def left_text(left: Pending) -> str:
    """Return what a commit has still to do."""
    files, size = left
    return f"{count_text(files, 'file')}, {bytes_text(size)} left"
