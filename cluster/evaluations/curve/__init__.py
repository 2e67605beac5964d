"""The rate-distortion curve of a decoder by annealed importance sampling."""
