"""The decision, and the messages that guards and the server exchange about decisions. Pure."""
