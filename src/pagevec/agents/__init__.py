"""Documents for agents: tools over the Model Context Protocol (MCP), and their two transports."""
