"""The qatqfs command as if in another boot of the machine: ``boot.py NUMBER ARGUMENT...``; 0 is this boot."""

import sys

from qatqfs.cli.main import main
from qatqfs.store.staging import records as staginglog

if __name__ == "__main__":
    number = int(sys.argv.pop(1))
    if number:
        staginglog.current_boot_id = lambda: b"boot %11d" % number
    main()
