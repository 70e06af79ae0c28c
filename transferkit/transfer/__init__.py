"""The engine: how bytes move between a source and a target that it is handed. It knows neither network nor disk."""
