"""The comparison that the fixture `compared` trains."""

from __future__ import annotations

METHODS = ["branched", "shared", "comb", "random", "anti", "decoders"]
# Three different ones: what is tuned for a method can be told from the others.
RATES = {"lr": 0.001, "decoder_lr": 0.002, "backbone_lr": 0.0005}
# Two of its tasks: what does not depend on their number is shown with half of the runs.
TWO = [
    "--tasks={depth: {class_path: branchtune.Depth, init_args: {name: depth}}, "
    "edge: {class_path: branchtune.Edges, init_args: {name: edge}}}",
    "--tree.groups=[1,1,2,2]",
]
ARGUMENTS = [f"--methods={METHODS}".replace("'", ""), "--seeds=[0,1]", "--quiet", "--name=versus"]
