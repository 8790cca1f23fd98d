"""What a fresh process is asked to take, so that it is its session's."""

from __future__ import annotations

from collections.abc import Callable

from warmline_service.errors import Reason, WarmlineError
from warmline_service.worker._argv import check_model
from warmline_service.worker._key import Binding, SpawnKey, SystemPrompt
from warmline_service.worker._messages import JsonObject
from warmline_service.worker._options import servers_as_json

Ask = tuple[str, JsonObject]  # a subtype of control request and its fields


def asks_of(binding: Binding, key: SpawnKey, alias: Callable[[str], str]) -> list[Ask]:
    """In the order in which they have to be asked; `alias` gives a model the name that the CLI likes best.

    Raises FIELD_INVALID for what cannot be a model's name, INTERNAL for what such a process cannot take.
    """
    asks: list[Ask] = []
    if binding.workspace not in (None, key.workspace):
        if key.primed or key.resume is not None:
            # It would run a turn of its own to tell the model.
            raise WarmlineError(
                Reason.INTERNAL, "A process with a past takes no workspace any more."
            )
        place = str(binding.workspace)
        fields = {"path": place, "trust_accepted": True, "trusted_directory": place}
        asks.append(("set_cwd", fields))
    options = binding.options
    first = _prompt_fields(binding.system_prompt) | options.first
    if first:
        if key.primed:
            raise WarmlineError(Reason.INTERNAL, "A primed process is past its first words.")
        asks.append(("initialize", first))
    own = bool(key.setting_sources)
    # It reads those of its directory again then: it may have begun before they were there.
    if options.settings or own:
        asks.append(("apply_flag_settings", {"settings": options.settings}))
    if own and key.resume is not None:
        asks += [("reload_skills", {}), ("reload_plugins", {})]
    if binding.servers:
        asks.append(("mcp_set_servers", {"servers": servers_as_json(binding.servers)}))
    # The settings of a workspace may name another, which is not theirs to say.
    if options.permission_mode != "default" or own:
        asks.append(("set_permission_mode", {"mode": options.permission_mode}))
    if binding.model is not None:
        asks.append(("set_model", {"model": alias(check_model(binding.model))}))
    if options.thinking_tokens is not None:
        tokens = {"max_thinking_tokens": options.thinking_tokens}
        asks.append(("set_max_thinking_tokens", tokens))
    return asks


def _prompt_fields(prompt: SystemPrompt | None) -> JsonObject:
    if prompt is None:
        return {}
    if prompt.kind == "replace":
        return {"systemPrompt": [prompt.text]}
    fields: JsonObject = {"appendSystemPrompt": prompt.text} if prompt.text else {}
    return fields | ({"excludeDynamicSections": True} if prompt.same_everywhere else {})
