"""``python -m qatqfs.cli``: the command without its console script."""

from qatqfs.cli.main import main

main()
