"""Which model family an id belongs to.

The rule: look at the name after the organisation, ignore case, let a separator stand at the
joints of a family's name (``gpt-neox``, ``open_llama``). A family of four or more characters may
match anywhere; one of up to three only between boundaries, because ``adopt`` is no ``opt``. The
earliest match wins, then the longest.
"""

import re
from functools import lru_cache

from shared.offers import model_name

_JOINTED_NAMES = (
    "llama", "mistral", "code llama", "qwen", "deep seek", "gpt", "falcon", "mpt", "open llama",
    "vicuna", "alpaca", "wizard", "baichuan", "chat glm", "intern lm", "yi", "aquila", "belle",
    "gemma", "bert", "t5", "roberta", "opt", "bloom", "gpt j", "gpt neo", "gpt neo x", "x glm",
    "pythia", "red pajama", "phi", "gpt 2",
)  # fmt: skip
_SHORT = 3
_SEPARATORS = " -_."


def _pattern(jointed: str) -> re.Pattern[str]:
    return re.compile(f"[{re.escape(_SEPARATORS)}]?".join(jointed.split()), re.IGNORECASE)


FAMILIES: dict[str, re.Pattern[str]] = {
    jointed.replace(" ", ""): _pattern(jointed) for jointed in _JOINTED_NAMES
}
"""Family name to the pattern that finds it."""


def _is_boundary(name: str, at: int) -> bool:
    """Whether position ``at`` lies between two words of ``name``."""
    if at in (0, len(name)):
        return True
    before, after = name[at - 1], name[at]
    return (
        not (before.isalnum() and after.isalnum())
        or before.isdigit() != after.isdigit()
        or (before.islower() and after.isupper())
    )


def _first_match(family: str, name: str) -> re.Match[str] | None:
    for found in FAMILIES[family].finditer(name):
        if len(family) > _SHORT:
            return found
        if _is_boundary(name, found.start()) and _is_boundary(name, found.end()):
            return found
    return None


@lru_cache(maxsize=4096)
def family_of(model: str) -> str | None:
    """The family of a model id, or None when it belongs to none of them.

    >>> family_of("codellama/CodeLlama-7b-hf")
    'codellama'
    >>> family_of("mistralai/Mixtral-8x7B-v0.1") is None
    True
    """
    name = model_name(model)
    matches = ((family, _first_match(family, name)) for family in FAMILIES)
    found = [(hit.start(), -len(hit[0]), family) for family, hit in matches if hit]
    return min(found)[2] if found else None
