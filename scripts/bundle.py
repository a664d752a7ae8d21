#!/usr/bin/env python3
"""The same as `medseg bundle`."""

from medseg.cli import main

if __name__ == "__main__":
    raise SystemExit(main(command="bundle"))
