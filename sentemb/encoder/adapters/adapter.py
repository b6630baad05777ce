"""What every adapter keeps to."""

from __future__ import annotations

from torch import nn

from sentemb.parts import Part


class Adapter(Part, room="adapters"):
    """Few new weights inside a backbone. A subclass has a keyword-only constructor that keeps settings."""

    def add_to(self, backbone: nn.Module) -> None:
        """Put the new weights into the backbone; everything else in it stops learning."""
        raise NotImplementedError
