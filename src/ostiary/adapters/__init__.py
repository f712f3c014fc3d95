"""Adapters for agent frameworks. There is one module for each framework; only this module imports the framework.

    pydantic_ai       Guarded(tools), a capability
    openai_agents     guard(agent, tools)
    langchain         Guarded(tools), the last middleware; guarded_node([..], tools) for a graph
    fastmcp           protect(server, guard), stdio=tools
    google_adk        Guarded(tools), a plugin of the runner
    crewai            guarded(tools), for the whole process
    claude_agent_sdk  guarded(options, tools)

All adapters use `ostiary.tools`. The framework gives a denial to the model as it gives any tool error, with the reason
and the hint; any error in an adapter leads to a denial. Tools that the adapter cannot control, because they run at the
model's provider, are refused unless they are named in `unguarded`. ADR 10 states the reasons and the costs.
"""
