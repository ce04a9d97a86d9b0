"""``qatqfs umount``: unmount and wait for the daemon."""

from collections.abc import Callable

import click

from qatqfs.cli.exits import DONE, REFUSED, complain, describe
from qatqfs.cli.progress import waiting
from qatqfs.cli.running import Untouched
from qatqfs.cli.tables import left_text
from qatqfs.mount.asking import Pending
from qatqfs.mount.errors import MountError
from qatqfs.mount.unmounting import StillMounted, unmount_and_wait

STILL_MOUNTED = 3
"""Exit status: unmounted here, but the daemon continues."""


@click.command()
@click.argument("mountpoints", nargs=-1, required=True, metavar="MOUNTPOINT...", type=Untouched())
@click.option("-l", "--lazy", is_flag=True, help="Unmount even while in use. The daemon ends with the last user.")
@click.option(
    "-f",
    "--force",
    is_flag=True,
    help="Disconnect a daemon that does not answer. Programs that use the mount then get errors. Acknowledged data is"
    " committed by the daemon, or recovered by the next mount.",
)
def command(mountpoints: tuple[str, ...], lazy: bool, force: bool) -> int:
    """Unmount each MOUNTPOINT, and return when everything written is in containers and the daemon has ended.

    umount(8) and "fusermount3 -u" unmount too, but they return while the daemon is still committing. The mount must
    not be in use, unless --lazy is given. A mount whose daemon has died is removed. No acknowledged data is lost
    then, but dirty files stay in staging until the next mount commits them.

    Another mount namespace (for example of a container) or a bind mount can hold a mount too. Its daemon then
    continues after MOUNTPOINT is unmounted: one line says who holds the mount, and the exit status is 3. Everything
    written until then is in containers. Ctrl-C ends this command, not the daemon.

    \b
    Exit status:
      0  everything is committed and the daemon has ended
      2  not unmounted, or not everything is committed; the rest is in staging
      3  unmounted here, but the mount is still held elsewhere
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
