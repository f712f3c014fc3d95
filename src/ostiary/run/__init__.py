"""An agent that people already have, with a guard in front of each of its stdio MCP servers.

configs    where agents keep their MCP servers, and a copy of that in which each stdio server has a guard in front
probe      what a server says of itself: its `tools/list`
enlist     whatever the registry lacks: owner, agent, a resource per server
frames     JSON-RPC over stdio, line by line
gate       the decision on one call; what passes where nobody can decide
exchange   the messages between a client and a server
proxy      the process between the agent and one server: `python -m ostiary.run PLAN -- COMMAND ...`
events     what the proxies tell `ostiary run` while it happens
"""
