"""YAML from a stranger, composed only as far as its work is bounded: the library takes seconds for a few thousand open
brackets, since it looks at each of them again for every token.
"""

from __future__ import annotations

import yaml
from yaml.tokens import Token

# Two hundred lines of eighty characters, and more levels than people write.
_MOST_CHARACTERS = 16_000
_DEEPEST = 32


class _BoundedLoader(yaml.SafeLoader):
    def fetch_flow_collection_start(self, TokenClass: type[Token]) -> None:
        if self.flow_level >= _DEEPEST:
            problem = f"brackets are nested more than {_DEEPEST} deep"
            raise yaml.scanner.ScannerError(None, None, problem, self.get_mark())
        super().fetch_flow_collection_start(TokenClass)


def compose_yaml(text: str) -> yaml.Node | None:
    """The document's nodes; None when it is empty. yaml.YAMLError for what is no YAML, too long or nested too deep."""
    if len(text) > _MOST_CHARACTERS:
        raise yaml.YAMLError(f"it has more than {_MOST_CHARACTERS:,} characters")
    try:
        node: yaml.Node | None = yaml.compose(text, Loader=_BoundedLoader)
    except RecursionError as error:
        raise yaml.YAMLError("it is nested too deep") from error
    return node
