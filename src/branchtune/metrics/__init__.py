"""Streaming metrics written from their definitions, one file each.

torchmetrics lacks most of them. Its RMSE, accuracy, relative errors and mean IoU mask no NaN targets, add up in float32
or leave absent classes out of the mean; where none of this matters, the tests hold ours equal to them.
"""
