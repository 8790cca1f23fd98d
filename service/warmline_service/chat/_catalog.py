"""The models that callers may name: what the CLI knows, and what the operator adds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from warmline_service.config import ModelSettings
from warmline_service.errors import Reason, WarmlineError
from warmline_service.worker import ModelInfo


@dataclass(frozen=True)
class Model:
    """One model; `id` is its full id at the provider, `aliases` are short names for it."""

    id: str
    aliases: tuple[str, ...]
    display_name: str
    description: str
    effort_levels: tuple[str, ...]
    is_default: bool


class ModelCatalog:
    """Looks models up by id or alias; the default comes first."""

    def __init__(self, known: Sequence[ModelInfo], settings: ModelSettings) -> None:
        # A CLI that names no models still has one that it takes by itself.
        infos = list(known) or [ModelInfo("default", "default", "Default")]
        ids = {info.id for info in infos} | {info.value for info in infos}
        infos += [
            ModelInfo(extra, extra, extra, "", ()) for extra in settings.extra if extra not in ids
        ]
        default = next((i for i in infos if settings.default in (i.value, i.id)), None)
        if default is None:
            raise ValueError(f"models.default: there is no model {settings.default!r}")
        self._cli_default = next((info.id for info in infos if info.value == "default"), None)
        by_id: dict[str, list[ModelInfo]] = {}
        for info in infos:
            by_id.setdefault(info.id, []).append(info)
        models = [_merge(entries, default.id) for entries in by_id.values()]
        self.models = tuple(sorted(models, key=lambda model: not model.is_default))
        self._by_name = {
            name: model for model in self.models for name in (model.id, *model.aliases)
        }

    @property
    def default(self) -> Model:
        """What a session gets that names no model."""
        return self.models[0]

    def resolve(self, name: str | None) -> Model:
        """The model of this id or alias, the default for None; raises MODEL_NOT_FOUND."""
        if not name:
            return self.default
        model = self._by_name.get(name)
        if model is None:
            known = ", ".join(
                model.aliases[0] if model.aliases else model.id for model in self.models
            )
            raise WarmlineError(
                Reason.MODEL_NOT_FOUND,
                f"There is no such model here; there are: {known}.",
                metadata={"models": known},
            )
        return model

    def cli_name(self, name: str | None) -> str | None:
        """What to call a model towards the CLI; None where the CLI takes it by itself.

        An alias is preferred: the CLI checks an id that it does not know by a request of its own.
        """
        model = self.resolve(name)
        if model.id == self._cli_default:
            return None
        return model.aliases[0] if model.aliases else model.id


def _merge(entries: list[ModelInfo], default_id: str) -> Model:
    # "default" says what a model is here, not what it is called: it describes nothing by itself.
    best = next((entry for entry in entries if entry.value != "default"), entries[0])
    return Model(
        id=best.id,
        aliases=tuple(e.value for e in entries if e.value not in (best.id, "default")),
        display_name=best.display_name,
        description=best.description,
        effort_levels=best.effort_levels,
        is_default=best.id == default_id,
    )
