"""Write files whole or not at all: `explorer.model.files`, under the name that whoever exports looks for."""

from explorer.model.files import replacing

__all__ = ["replacing"]
