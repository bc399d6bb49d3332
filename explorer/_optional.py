"""Optional packages: imported where they are used, with an error that says how to get them."""

from __future__ import annotations

import importlib
from typing import Any

from explorer.errors import MissingDependency


def require(module: str, *, why: str, extra: str) -> Any:
    """Return the imported ``module``.

    Args:
        module: dotted name of the module.
        why: what it is needed for, as the end of "it is needed ...".
        extra: the extra of this package that installs it.

    Raises:
        MissingDependency: the package is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = (error.name or module).partition(".")[0]
        if missing != module.partition(".")[0]:
            raise
        raise MissingDependency(
            f"The package '{missing}' is not installed; it is needed {why}.",
            fix=f"Install it with: pip install 'precision-explorer[{extra}]'",
        ) from error
    except ImportError as error:
        # An extension that is interrupted while it loads says only that it failed; the interrupt is what was meant.
        cause = error.__cause__ or error.__context__
        if isinstance(cause, KeyboardInterrupt):
            raise KeyboardInterrupt from error
        raise
