"""The key-value store: any bytes under any key, with a time to live."""
