"""A backbone's weights in low precision, adapters and decoders in full: a model for inference in less memory."""
