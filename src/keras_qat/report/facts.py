"""Settings and environment as pairs of texts, for tables of two columns."""

from collections.abc import Mapping
from typing import Any

from keras_qat.report.environment import Environment


def setting_facts(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Each setting and its value.

    Example:
        >>> setting_facts({"overrides": None, "bias_correction": True, "learning_rate": 3e-6})
        [('overrides', '–'), ('bias_correction', 'yes'), ('learning_rate', '3e-06')]
    """
    return [(name, _text(value)) for name, value in settings.items()]


def environment_facts(environment: Environment) -> list[tuple[str, str]]:
    """The machine, then the versions."""
    return [
        ("CPU", environment.cpu),
        ("Cores", str(environment.cores)),
        ("VNNI", "unknown" if environment.vnni is None else _text(environment.vnni)),
        ("System", environment.system),
        ("Python", environment.python),
        *environment.packages.items(),
    ]


def _text(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {None: "–", True: "yes", False: "no"}[value]
    return str(value)
