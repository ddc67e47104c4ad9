"""JSON documents in collections."""
