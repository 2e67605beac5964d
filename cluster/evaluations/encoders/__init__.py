"""The rate-distortion curve of trained encoders, for comparison."""
