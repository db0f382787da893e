#!python
"""The program `reconcile`, as it is installed: what installers write for an entry point imports more than all of `lean`."""

from reconciler.cli.lean import main

if __name__ == "__main__":
    main()
