"""Networks that were not trained here."""
