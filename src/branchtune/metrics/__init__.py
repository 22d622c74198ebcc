"""Streaming metrics that torchmetrics lacks, written from their definitions; one file each."""
