"""Support of `ostiary run`: an existing agent runs with a guard in front of each of its MCP servers and HTTP APIs.

configs    the configurations of agents for MCP servers, and the copy in which a guard stands before each server
apis       HTTP APIs, and the ways in which a command finds their local addresses
probe      the lists of a stdio server; `http_probe`: the lists of a remote server
enlist     registration of missing objects: the agent, and a resource per server
local      local HTTP proxies in front of remote servers and HTTP APIs
frames     JSON-RPC over stdio, line by line
gate       the decision on one call, with the agent's token
exchange   the messages between a client and a server
proxy      the process between the agent and one server: `python -m ostiary.run PLAN -- COMMAND ...`
events     messages from the proxies to `ostiary run`
"""
