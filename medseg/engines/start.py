"""Run an engine from a config."""

from __future__ import annotations

from ignite.engine import Engine

__all__ = ["run"]


def run(engine: Engine) -> None:
    """Run it; an entry of a config's ``run``: ``{_target_: medseg.engines.run, engine: "@train::trainer"}``."""
    engine.run()
