"""Networks of the published systems, one file a system, and the layers that they share."""
