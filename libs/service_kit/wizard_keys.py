"""Keys of ExLab-Wizard's configuration that may be pasted into labferry.yaml (FORMATS §10)."""

from __future__ import annotations

from typing import Any

_WITHOUT_MEANING = (
    ("paths", "templates_dir"),
    ("paths", "plugin_dir"),
    ("operators", "allowlist"),
    ("plugins", "allow_network"),
    ("sync", "enabled"),
    ("sync", "retry_attempts"),
    ("logging", "central_log_max_mb"),
    ("logging", "central_log_keep"),
    ("orchestrator", "enabled"),
)
_WITHOUT_MEANING_IN_EQUIPMENT = ("orchestrator_staging_transport",)
_PASSWORDS = ("password", "ssh_password")

Mistakes = list[tuple[tuple[str | int, ...], str]]


def take_wizard_keys(values: dict[str, Any]) -> tuple[list[str], Mistakes]:
    """Maps or removes such keys in place. Returns notices for what has no meaning here, and what is a mistake."""
    notices: list[str] = []
    mistakes: Mistakes = []
    for block, key in _WITHOUT_MEANING:
        if isinstance(values.get(block), dict) and key in values[block]:
            del values[block][key]
            notices.append(f"{block}.{key} has no meaning for Labferry and is ignored")
    fallback_root = values["paths"].pop("local_root", None) if isinstance(values.get("paths"), dict) else None
    for block in ("paths", "operators", "plugins", "sync"):
        if values.get(block) == {}:
            del values[block]
    equipment = values.get("equipment")
    if not isinstance(equipment, list):
        return notices, mistakes
    kept = []
    for index, entry in enumerate(equipment):
        if not isinstance(entry, dict):
            kept.append(entry)
            continue
        if entry.pop("sync_mode", "nas") == "stage":
            notices.append(f"equipment {entry.get('id')}: sync_mode stage: its runs are not synced from this machine")
            continue
        for key in _WITHOUT_MEANING_IN_EQUIPMENT:
            if entry.pop(key, None) is not None:
                notices.append(f"equipment[{index}].{key} has no meaning for Labferry and is ignored")
        if fallback_root is not None:
            entry.setdefault("local_root", fallback_root)
        mistakes += _transport_mistakes(entry, ("equipment", index))
        kept.append(entry)
    values["equipment"] = kept
    return notices, mistakes


def _transport_mistakes(entry: dict[str, Any], at: tuple[str | int, ...]) -> Mistakes:
    """What must be said in words of its own rather than as a key or value that isn't known."""
    mistakes: Mistakes = []
    places: list[tuple[tuple[str | int, ...], Any]] = [((*at, "transport"), entry.get("transport"))]
    destinations = entry.get("destinations")
    if isinstance(destinations, list):
        places += [
            ((*at, "destinations", number, "transport"), d.get("transport"))
            for number, d in enumerate(destinations)
            if isinstance(d, dict)
        ]
    for place, transport in places:
        if not isinstance(transport, dict):
            continue
        for key in _PASSWORDS:
            if transport.pop(key, None) is not None:
                mistakes.append(((*place, key), "no secret belongs into this file; keep it in the secrets service"))
    return mistakes
