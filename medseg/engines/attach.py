"""Put an object that a config defines once, and uses in several places, into a list of handlers."""

from __future__ import annotations

from typing import Any

__all__ = ["Attach"]


class Attach:
    """``{_target_: medseg.engines.Attach, handler: "@checkpoint"}``: MONAI's property check wants dictionaries in
    handler lists.
    """

    def __init__(self, handler: Any) -> None:
        self.handler = handler

    def attach(self, engine: Any) -> None:
        self.handler.attach(engine)
