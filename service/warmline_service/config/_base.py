"""What the tables of the settings file have in common."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

MIB = 1024 * 1024

Seconds = Annotated[float, Field(gt=0, le=7 * 24 * 3600)]
Id = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
Sha256Hex = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class Section(BaseModel):
    """A table of the settings file; an unknown key is an error, not a typo that nobody sees."""

    model_config = ConfigDict(extra="forbid", frozen=True)
