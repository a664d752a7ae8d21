#!/usr/bin/env python3
"""The same as `medseg cite`."""

from medseg.cli import main

if __name__ == "__main__":
    raise SystemExit(main(command="cite"))
