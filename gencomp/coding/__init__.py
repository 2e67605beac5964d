"""From symbols to bytes and back: packed symbols and the container that every codec writes."""
