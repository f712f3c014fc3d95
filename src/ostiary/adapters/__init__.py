"""Agent frameworks whose tool calls are decided: one module each, and nothing else imports the framework.

    pydantic_ai       Guarded(tools), a capability
    openai_agents     guard(agent, tools)
    langchain         Guarded(tools), the last middleware; guarded_node([..], tools) for a graph
    fastmcp           protect(server, guard), stdio=tools
    google_adk        Guarded(tools), a plugin of the runner
    crewai            guarded(tools), for the whole process
    claude_agent_sdk  guarded(options, tools)

All stand on `ostiary.tools`. A denial reaches the model in the framework's own way, with its reason and its hint;
whatever goes wrong in an adapter denies. What a framework runs where no adapter can see it (tools at the model's
provider) is refused, unless it is named in `unguarded`. Why, and what it costs: ADR 10.
"""
