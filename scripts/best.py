#!/usr/bin/env python3
"""The same as `medseg best`."""

from medseg.cli import main

if __name__ == "__main__":
    raise SystemExit(main(command="best"))
