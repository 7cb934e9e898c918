"""One file per discriminator; each registers itself."""

from __future__ import annotations

from clade.registry import import_all

import_all(__name__, __path__)
