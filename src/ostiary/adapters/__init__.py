"""Adapters for agent frameworks: one module each, which alone imports the framework.

    pydantic_ai       Guarded(tools), a capability
    openai_agents     guard(agent, tools)
    langchain         Guarded(tools), the last middleware; guarded_node([..], tools) for a graph
    fastmcp           protect(server, guard), stdio=tools
    google_adk        Guarded(tools), a plugin of the runner
    crewai            guarded(tools), for the whole process
    claude_agent_sdk  guarded(options, tools)

All use `ostiary.tools`. A denial reaches the model in the framework's own way, with its reason and its hint;
any error in an adapter denies. Tools that a framework runs out of reach of its adapter (tools at the model's
provider) are refused, unless they are named in `unguarded`. Reasons and costs: ADR 10.
"""
