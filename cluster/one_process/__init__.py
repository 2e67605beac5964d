"""One worker on this machine, as a child process of the driver and without Ray."""
