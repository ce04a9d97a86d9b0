"""The ``-o`` options of a mount, as they come from fstab(5) through mount(8) and mount.fuse3(8).

There are four kinds. Options of qatqfs mostly have the names of the command's options. Options of the kernel and of
libfuse are passed on. Options for mount(8) or systemd, and those without effect, are ignored. Options of other FUSE
filesystems that mean nothing here are refused with a reason. Any other option is refused too: if a misspelt option
were ignored, the user would believe that it works.
"""

import os
import re
from dataclasses import dataclass, field
from typing import Any

import click
from click.core import ParameterSource

_FOR_THE_KERNEL = {
    *("dev", "nodev", "suid", "nosuid", "exec", "noexec"),
    *("sync", "async", "dirsync", "noatime", "auto_unmount"),
}
_FOR_THE_KERNEL_WITH_VALUE = {"context", "fscontext", "defcontext", "rootcontext"}
_OF_A_MOUNT_THAT_IS_UP = {"user_id", "group_id", "rootmode", "fd", "blksize"}
"""What /proc/mounts shows for a FUSE mount; mount(8) passes them on when it remounts."""
_MODES_STAY = "files keep the modes that they have; use chmod, or the umask of the program that writes"
_OWNERS_STAY = "files keep the owners that they have; use chown"
_REFUSED = {
    "max_read": "reads are as large as the kernel makes them",
    "fsname": "the source of a mount is always its backing directory",
    **dict.fromkeys(("umask", "fmask", "dmask"), _MODES_STAY),
    **dict.fromkeys(("uid", "gid"), _OWNERS_STAY),
}
_IGNORED = {
    # for mount(8) and systemd
    *("auto", "noauto", "user", "nouser", "users", "owner", "group", "nofail", "_netdev", "defaults", "comment"),
    *("uhelper", "helper"),
    # already true of every mount, or without meaning here: access times are those of the backing directory
    *("remount", "default_permissions", "subtype", "atime", "relatime", "norelatime", "strictatime", "nostrictatime"),
    *("diratime", "nodiratime", "lazytime", "nolazytime", "silent", "loud", "mand", "nomand", "iversion", "noiversion"),
}
_IGNORED_PREFIXES = ("x-", "X-")
_WORD = re.compile(r"(?:[^,\\]|\\.)+", re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


@dataclass(slots=True)
class FstabOptions:
    """What a list of ``-o`` options means.

    Attributes:
        own: values of the options of qatqfs, by parameter name; a list if the option may be repeated.
        fuse: options to pass on.
        nonempty: whether MOUNTPOINT may be a directory that is not empty.
        remount: the names of all options in order, to change a live mount; otherwise ``None``.
    """

    own: dict[str, Any] = field(default_factory=dict)
    fuse: list[str] = field(default_factory=list)
    nonempty: bool = False
    remount: list[str] | None = None


def parse(texts: tuple[str, ...], parameters: dict[str, click.Option], ctx: click.Context) -> FstabOptions:
    r"""Read comma-separated options; a comma in a value is written ``\,``.

    Args:
        texts: the argument of each ``-o``.
        parameters: the options of qatqfs by parameter name; users may write it with ``_`` or ``-``.
        ctx: of the command, for conversions.

    Raises:
        click.UsageError: an option is unknown, or its value is not valid.
    """
    found = FstabOptions()
    words = [word for text in texts for word in _WORD.findall(text)]
    pairs = [(word.strip(), *_ESCAPED.sub(r"\1", word).strip().partition("=")) for word in words]
    if any(name == "remount" for _, name, _, _ in pairs):
        found.remount = [name for _, name, _, _ in pairs]
        pairs = [pair for pair in pairs if pair[1] not in _OF_A_MOUNT_THAT_IS_UP]
    for word, name, equals, value in pairs:
        if name in _REFUSED:
            raise click.UsageError(f"mount option {name!r} cannot be used: {_REFUSED[name]}")
        if name in _IGNORED or name.startswith(_IGNORED_PREFIXES):
            continue
        if name in ("ro", "rw") and not equals:
            found.own["read_only"] = name == "ro"
        elif name == "nonempty" and not equals:
            found.nonempty = True
        elif name == "allow_root" and not equals:
            if os.geteuid() != 0:  # root may use its own mount anyway
                found.fuse.append(word)
        elif (name in _FOR_THE_KERNEL and not equals) or (name in _FOR_THE_KERNEL_WITH_VALUE and equals):
            found.fuse.append(word)
        else:
            parameter = parameters.get(name.replace("-", "_"))
            if parameter is None or parameter.name is None:
                raise click.UsageError(f"unknown mount option {name!r}")
            _take(found.own, parameter, name, value if equals else None, ctx)
    return found


def _take(own: dict[str, Any], parameter: click.Option, name: str, value: str | None, ctx: click.Context) -> None:
    """Convert the value of an option of qatqfs, and store it in ``own``."""
    assert parameter.name is not None
    if parameter.is_flag:
        if value is not None:
            raise click.UsageError(f"mount option {name!r} takes no value")
        own[parameter.name] = True
        return
    if not value:
        raise click.UsageError(f"mount option {name!r} needs a value")
    try:
        converted = parameter.type.convert(value, parameter, ctx)
    except click.BadParameter as err:
        raise click.UsageError(f"mount option {name!r}: {err.message}") from err
    if parameter.multiple:
        own.setdefault(parameter.name, []).append(converted)
    else:
        own[parameter.name] = converted


def merge(given: dict[str, Any], fstab: FstabOptions, ctx: click.Context) -> dict[str, Any]:
    """Return the command's options; ``-o`` supplies those that the command line itself does not give."""
    merged = dict(given)
    for name, value in fstab.own.items():
        if isinstance(value, list):
            merged[name] = (*merged[name], *value)
        elif ctx.get_parameter_source(name) is ParameterSource.DEFAULT:
            merged[name] = value
    return merged
