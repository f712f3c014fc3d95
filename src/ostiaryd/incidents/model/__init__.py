"""Facts and rules of incidents. Pure."""
