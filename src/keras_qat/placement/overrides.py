"""What the user wants otherwise than the target's table: ordered rules about layers, and a function of edges.

For each setting (inputs, output, weights, weight_bits) of each layer the last rule that matches the layer and says
something about that setting wins. An edge has two ends: of the consumer's `inputs` and the producer's `output` the
later rule wins, and within one rule `inputs`.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from keras_qat.errors import UserError
from keras_qat.graph import Edge, Graph
from keras_qat.placement.rule import Rule, check_keys, rule_from_json, rule_to_json
from keras_qat.storage import read_text, write_text
from keras_qat.types import EdgeDecision

Mode = Literal["full", "partial"]

EdgeRule = Callable[[Graph, Edge, EdgeDecision], EdgeDecision | None]
"""(graph, edge, the decision so far) → another decision, or `None` to leave it."""


@dataclass(frozen=True)
class Overrides:
    """A reusable value: apply it to any model whose layers it names.

    Args:
        rules: in order; the last that matches wins.
        mode: `"full"`: where no rule speaks, the target's table does. `"partial"`: there everything stays float.
        edges: has the last word on single edges. It is called once for every edge.

    Example:
        >>> overrides = Overrides((Rule.keep_float("conv1_conv", "predictions"),))
        >>> Overrides.from_json(overrides.to_json()) == overrides
        True
    """

    rules: tuple[Rule, ...] = ()
    mode: Mode = "full"
    edges: EdgeRule | None = None

    def __post_init__(self) -> None:
        """Take lists for tuples, refuse an unknown mode."""
        object.__setattr__(self, "rules", tuple(self.rules))
        if self.mode not in ("full", "partial"):
            raise UserError(f"`mode` must be 'full' or 'partial'. Received: mode={self.mode!r}.")

    def to_json(self) -> str:
        """The rules as JSON text.

        Raises:
            UserError: a rule selects by a predicate, or there is a function of edges: code can't be saved.
        """
        if self.edges is not None:
            raise UserError(
                f"A function of edges is code and can't be saved. Received: edges={function_name(self.edges)}. "
                "Say it in rules by name, glob or type, or pass the overrides in Python."
            )
        return json.dumps({"mode": self.mode, "rules": [rule_to_json(rule) for rule in self.rules]}, indent=2)

    @classmethod
    def from_json(cls, text: str) -> "Overrides":
        """What `to_json` wrote, or somebody by hand.

        Raises:
            UserError: the text isn't JSON of that form, or names an unknown key, kind or type.
        """
        try:
            value = json.loads(text)
        except json.JSONDecodeError as error:
            raise UserError(f"The overrides aren't JSON: {error}. Received: {text[:80]!r}. Mend that line.") from error
        check_keys(value, {"mode", "rules"}, "The value of overrides")
        rules = value.get("rules", [])
        if not isinstance(rules, list):
            raise UserError(f'`rules` must be a list. Received: {rules!r}. Write {{"rules": [{{"select": …}}]}}.')
        return cls(tuple(rule_from_json(rule) for rule in rules), value.get("mode", "full"))

    def save(self, path: str | Path) -> None:
        """Write the JSON to a file.

        Raises:
            StorageError: the file can't be written.
            UserError: as `to_json`.
        """
        write_text(Path(path), self.to_json() + "\n")

    @classmethod
    def load(cls, path: str | Path) -> "Overrides":
        """Read a file that `save` or a person wrote.

        Raises:
            StorageError: the file can't be read.
            UserError: as `from_json`.
        """
        return cls.from_json(read_text(Path(path)))


def function_name(function: Any) -> str:
    """What a function is called in a reason."""
    return str(getattr(function, "__name__", type(function).__name__))
