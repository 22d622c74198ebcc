"""The comparison that the fixture `compared` trains."""

from __future__ import annotations

METHODS = ["branched", "shared", "comb", "random", "anti", "decoders"]
ARGUMENTS = [f"--methods={METHODS}".replace("'", ""), "--seeds=[0,1]", "--quiet", "--name=versus"]
