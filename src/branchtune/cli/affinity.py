"""`branchtune affinity CONFIG`."""

from __future__ import annotations

from collections.abc import Sequence

from branchtune.cli.arguments import configured

TEXT = """Fit the decoders on the frozen backbone, then measure which tasks pull the shared parameters the same way.
Writes affinity.json into the run directory; `fit` continues from there."""


def run(argv: Sequence[str]) -> None:
    settings, options = configured("affinity", TEXT, argv)
    from branchtune.progress import Reporter
    from branchtune.run.fit import measure

    measure(settings, Reporter(options.quiet))
