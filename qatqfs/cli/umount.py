"""``qatqfs umount``: unmount and wait for the daemon."""

import click

from qatqfs.cli.exits import DONE, complain
from qatqfs.cli.progress import waiting
from qatqfs.mount.unmounting import unmount_and_wait


@click.command()
@click.argument("mountpoint", type=click.Path())
def command(mountpoint: str) -> int:
    """Unmount MOUNTPOINT and return when everything written to it is in containers and the daemon is gone.

    umount(8) and "fusermount3 -u" unmount as well, but return while the daemon is still committing. The mount
    must not be in use. A mount whose daemon has died is removed; nothing it had acknowledged is lost.

    \b
    Example:
      qatqfs umount /data/kv
    """
    with waiting("committing"):
        unmount_and_wait(mountpoint, complain)
    return DONE
