"""Decoders in integers: what the accelerator's arithmetic gives, from calibration to logits."""
