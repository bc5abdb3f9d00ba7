"""`python -m pagevec`: the command line."""

from pagevec.cli import main

main(prog_name="pagevec")
