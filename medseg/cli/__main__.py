"""``python -m medseg.cli`` is ``medseg``."""

from medseg.cli import main

if __name__ == "__main__":  # processes that a command starts import this module too
    raise SystemExit(main())
