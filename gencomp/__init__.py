"""Generative image compression: systems, losses, coding, rate-distortion, metrics, recipes."""

__version__ = "0.1.0"
