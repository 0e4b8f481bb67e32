"""Our docstrings have one `Example:`, which griffe takes for a box; as `Examples:` it is shown as code."""

import re
from typing import Any

import griffe


class SingleExample(griffe.Extension):
    """Rename the section while a docstring is read."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:  # noqa: ARG002
        """Called for each module, class, function and attribute."""
        if obj.docstring is not None:
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
