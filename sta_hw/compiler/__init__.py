"""The compiler: from a network and its calibration to the image and program that hardware runs."""
