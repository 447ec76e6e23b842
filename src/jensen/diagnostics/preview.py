"""A diagnostic's settings, checked before there is anything to look at: training must not end at
its first validation.

A diagnostic checks its settings, and what it needs of the model, before it looks at the snapshot.
So a call with a snapshot that cannot be looked at, but for what is known before the first step, is
the check.
"""

import inspect
from collections.abc import Mapping
from typing import Any

import torch

from jensen.base.errors import InputError
from jensen.diagnostics.snapshot import Diagnostic


class UnseenError(Exception):
    """A diagnostic looked at what is not there yet: its settings are fine."""


class Preview:
    """A snapshot before training, of which only `known` fields can be looked at."""

    def __init__(self, **known: Any) -> None:
        self.__dict__.update(known)

    def __getattr__(self, name: str) -> Any:
        raise UnseenError(name)


@torch.no_grad()
def check_settings(diagnostics: Mapping[str, Diagnostic], preview: Preview) -> None:
    """Refuse diagnostics whose settings, or whose needs, would end a validation."""
    for name, diagnostic in diagnostics.items():
        try:
            inspect.signature(diagnostic).bind(preview)
        except (TypeError, ValueError) as error:
            raise InputError(
                f"diagnostics.{name} cannot be called ({error}): expected settings that it has"
            ) from error
        if not _is_own(diagnostic):
            continue
        try:
            diagnostic(preview)  # type: ignore[arg-type]
        except UnseenError:
            continue
        except InputError as error:
            first = str(error).split(" ")[0]
            setting = first in getattr(diagnostic, "keywords", {})
            raise InputError(f"diagnostics.{name}{'.' if setting else ': '}{error}") from error


def _is_own(diagnostic: Diagnostic) -> bool:
    """Tell whether it keeps the rule above; a user's might do more than look."""
    function = getattr(diagnostic, "func", diagnostic)
    return str(getattr(function, "__module__", "")).startswith("jensen.")
