"""Check whether a FUSE filesystem can be mounted here: exit 0 if so, else 1 and one line with the reason.

It is not enough that /dev/fuse exists: a container may see the device, but may not open it or may not mount. So this
mounts an empty filesystem for a moment.
"""

import os
import shutil
import sys
import tempfile


def obstacle() -> str | None:
    """Return why nothing can be mounted, or None if it can."""
    if not os.path.exists("/dev/fuse"):
        return "/dev/fuse is missing"
    if os.geteuid() == 0:
        try:
            os.close(os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC))
        except OSError as error:
            return f"/dev/fuse cannot be opened: {error.strerror}"
    elif shutil.which("fusermount3") is None:  # set-uid root; it opens the device for ordinary users
        return "fusermount3 (Debian package fuse3) is missing"
    elif not os.path.exists("/etc/mtab"):
        return (
            "/etc/mtab is missing, so fusermount3 could not unmount (make it with: ln -s /proc/self/mounts /etc/mtab)"
        )
    return _trial_mount()


def _trial_mount() -> str | None:
    try:
        import pyfuse3
    except ImportError as error:
        return f"pyfuse3 cannot be imported: {error}"
    with tempfile.TemporaryDirectory(prefix="qatqfs-check-") as mountpoint, tempfile.TemporaryFile() as said:
        options = set(pyfuse3.default_options) | {"fsname=qatqfs-check"}
        stderr = os.dup(2)
        os.dup2(said.fileno(), 2)  # libfuse gives its reasons only on stderr
        try:
            pyfuse3.init(pyfuse3.Operations(), mountpoint, options)
        except RuntimeError as error:
            said.seek(0)
            lines = said.read().decode(errors="replace").splitlines() or [str(error)]
            return f"mounting is refused ({lines[-1]}); a container needs /dev/fuse and CAP_SYS_ADMIN"
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
        pyfuse3.close(unmount=True)
    return None


def main() -> int:
    """Print the obstacle, if there is one."""
    reason = obstacle()
    if reason is None:
        return 0
    print(reason)
    return 1


if __name__ == "__main__":
    sys.exit(main())
