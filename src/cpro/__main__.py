"""`python -m cpro` is the command `cpro`."""

from cpro.cli import main

main(prog_name="cpro")
