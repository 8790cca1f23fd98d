"""What every event is."""

from __future__ import annotations

from msgspec import Struct


class Tagged(Struct, frozen=True, gc=False, tag_field="@", omit_defaults=True):
    """What is stored with its tag."""
