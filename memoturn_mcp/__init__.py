"""The surfaces: the MCP server, the REST side door, the command line. `app` puts them together."""
