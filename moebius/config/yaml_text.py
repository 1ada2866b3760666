"""YAML as a stranger may write it: plain data of bounded size, however its aliases repeat it.

PyYAML itself takes the last of two equal keys in silence; here they are refused.
"""

from typing import Any

import yaml

CHARACTERS = 250_000
"""Most that a document may stand for, aliases written out: a hundred times a large recipe."""
DEPTH = 50
"""Most levels of sections and lists in each other."""
SHOWN = 80
"""Most characters of a key that an error shows."""


def read_yaml(text: str) -> Any:
    """The plain data of a document: no tags that make objects, no cycles, no bombs.

    Raises:
        ValueError: malformed, too large, too deep, or with a key twice in one section; one line.
    """
    if len(text) > CHARACTERS:
        raise ValueError(f"it has more than {CHARACTERS:,} characters")
    try:
        return yaml.load(text, Loader=_Loader)
    # PyYAML answers a tag that does not fit its text with nearly any exception.
    except Exception as error:
        raise ValueError(" ".join(str(error).split())) from None


class _Loader(yaml.SafeLoader):
    """Measures every node before anything is made of it.

    A document with anchors is a graph, small in memory; what is too large is its tree, which
    readers walk. So each node has the size and depth of its tree, and those that are aliases
    count once more wherever they stand (the billion laughs); one that is not yet measured then
    holds itself.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._level = 0
        self._measured: dict[int, tuple[int, int]] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        alias = self.check_event(yaml.AliasEvent)
        self._level += 1
        self._check(0, self._level)  # before the parser itself runs out of stack
        node = super().compose_node(parent, index)
        self._level -= 1
        if node is None:
            return None
        if not alias:
            _check_keys(node)
            self._measured[id(node)] = self._measure(node)
        elif id(node) not in self._measured:
            raise ValueError("an alias stands within what it stands for")
        self._check(*self._measured[id(node)])
        return node

    def _measure(self, node: yaml.Node) -> tuple[int, int]:
        """Characters, one for a node itself, and levels."""
        if isinstance(node, yaml.ScalarNode):
            return 1 + len(node.value), 1
        inside = (
            node.value
            if isinstance(node, yaml.SequenceNode)
            else [part for pair in node.value for part in pair]
        )
        parts = [self._measured[id(part)] for part in inside]
        return 1 + sum(size for size, _ in parts), 1 + max((deep for _, deep in parts), default=0)

    def _check(self, size: int, levels: int) -> None:
        if size > CHARACTERS:
            raise ValueError(f"with its aliases it has more than {CHARACTERS:,} characters")
        if levels > DEPTH:
            raise ValueError(f"more than {DEPTH} sections or lists lie in each other")


def _check_keys(node: yaml.Node) -> None:
    """As they are written: what a merge (`<<`) brings may be written anew."""
    lines: dict[tuple[str, str], int] = {}
    for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
        if not isinstance(key, yaml.ScalarNode):
            continue
        written, line = (key.tag, key.value), key.start_mark.line + 1
        if written in lines:
            raise ValueError(
                f"the key {key.value[:SHOWN]!r} stands twice, in lines {lines[written]} and {line}"
            )
        lines[written] = line
