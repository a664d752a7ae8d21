"""``python -m medseg.cli`` is ``medseg``."""

from medseg.cli import main

raise SystemExit(main())
