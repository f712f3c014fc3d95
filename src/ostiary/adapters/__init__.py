"""Agent frameworks whose tool calls are decided: one module each, and nothing else imports the framework.

    pydantic_ai      Guarded(tools), a capability                 langchain   guarded(tools), a middleware; ToolNode too
    openai_agents    guarded(agent, tools)                        google_adk  Guarded(tools), a plugin of the runner
    fastmcp          protect(server, guard)                       crewai      guarded(tools), hooks of the process
    claude_agent     guarded(options, tools)

All stand on `ostiary.tools`. A denial reaches the model in the framework's own way, with its reason and its hint;
whatever goes wrong in an adapter denies. What a framework runs where no adapter can see it (tools at the model's
provider) is refused, unless it is named in `unguarded`.
"""
