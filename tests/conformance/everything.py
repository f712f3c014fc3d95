"""An MCP server with the tools, resources and prompts for which the MCP conformance suite asks by name."""

from __future__ import annotations

import json
from base64 import b64decode
from typing import Any

from mcp.server import ServerRequestContext
from mcp.server.mcpserver import Context, MCPServer, RequestStateSecurity
from mcp.server.mcpserver.prompts.base import Prompt, UserMessage
from mcp.server.streamable_http import EventCallback, EventMessage, EventStore
from mcp.shared.exceptions import MCPError
from mcp_types import (
    MISSING_REQUIRED_CLIENT_CAPABILITY,
    AudioContent,
    Completion,
    CompletionArgument,
    CompletionContext,
    ContentBlock,
    CreateMessageRequest,
    CreateMessageRequestParams,
    CreateMessageResult,
    ElicitRequest,
    ElicitRequestFormParams,
    ElicitResult,
    EmbeddedResource,
    EmptyResult,
    ImageContent,
    InputRequest,
    InputRequiredResult,
    JSONRPCMessage,
    ListRootsRequest,
    ListRootsResult,
    PromptReference,
    ResourceTemplateReference,
    SamplingMessage,
    SetLevelRequestParams,
    SubscribeRequestParams,
    TextContent,
    TextResourceContents,
    UnsubscribeRequestParams,
)
from pydantic import BaseModel, Field

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
SILENCE = "UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAEAfAAABAAgAZGF0YQAAAAA="


class Events(EventStore):
    """Everything that was sent, so that a stream that broke off can be resumed."""

    def __init__(self) -> None:
        self._sent: list[tuple[str, JSONRPCMessage | None]] = []

    async def store_event(self, stream_id: str, message: JSONRPCMessage | None) -> str:
        self._sent.append((stream_id, message))
        return str(len(self._sent))

    async def replay_events_after(self, last_event_id: str, send_callback: EventCallback) -> str | None:
        last = int(last_event_id)
        if not 0 < last <= len(self._sent):
            return None
        stream = self._sent[last - 1][0]
        for number, (of, message) in enumerate(self._sent[last:], last + 1):
            if of == stream and message is not None:
                await send_callback(EventMessage(message, str(number)))
        return stream


def everything() -> MCPServer:
    security = RequestStateSecurity(keys=[b"the key of this test server alone, 32 bytes"])
    server = MCPServer("everything", version="1", request_state_security=security)
    add_contents(server)
    add_conversations(server)
    add_inputs(server)
    add_changes(server)
    add_resources(server)
    add_prompts(server)
    add_methods(server)
    return server


def text(said: str) -> TextContent:
    return TextContent(type="text", text=said)


def picture() -> ImageContent:
    return ImageContent(type="image", data=PIXEL, mime_type="image/png")


def embedded(uri: str, mime_type: str, said: str) -> EmbeddedResource:
    return EmbeddedResource(type="resource", resource=TextResourceContents(uri=uri, mime_type=mime_type, text=said))


def add_contents(server: MCPServer) -> None:
    """Tools that return each type of content, an error, or have a schema with all keywords."""

    @server.tool("test_simple_text", description="Return text")
    def simple_text() -> str:
        return "This is a simple text response for testing."

    @server.tool("test_image_content", description="Return an image")
    def image_content() -> list[ContentBlock]:
        return [picture()]

    @server.tool("test_audio_content", description="Return a sound")
    def audio_content() -> list[ContentBlock]:
        return [AudioContent(type="audio", data=SILENCE, mime_type="audio/wav")]

    @server.tool("test_embedded_resource", description="Return a resource within the result")
    def embedded_resource() -> list[ContentBlock]:
        return [embedded("test://embedded-resource", "text/plain", "A resource within a result.")]

    @server.tool("test_multiple_content_types", description="Return text, an image and a resource")
    def multiple_content_types() -> list[ContentBlock]:
        return [text("Three types."), picture(), embedded("test://mixed-content-resource", "application/json", "{}")]

    @server.tool("test_error_handling", description="Fail")
    def error_handling() -> str:
        raise RuntimeError("This tool intentionally returns an error for testing")

    @server.tool(description="Have a schema with keywords of JSON Schema 2020-12")
    def json_schema_2020_12_tool() -> str:
        return "nothing"

    server._tool_manager._tools["json_schema_2020_12_tool"].parameters = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "$defs": {
            "address": {
                "$anchor": "addressDef",
                "type": "object",
                "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
            }
        },
        "properties": {
            "name": {"type": "string"},
            "address": {"$ref": "#/$defs/address"},
            "contactMethod": {"type": "string", "enum": ["phone", "email"]},
            "phone": {"type": "string"},
            "email": {"type": "string"},
        },
        "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
        "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
        "then": {"required": ["phone"]},
        "else": {"required": ["email"]},
        "additionalProperties": False,
    }


class Name(BaseModel):
    response: str


class Defaults(BaseModel):
    name: str = "John Doe"
    age: int = 30
    score: float = 95.5
    status: str = Field("active", json_schema_extra={"enum": ["active", "inactive", "pending"]})
    verified: bool = True


def titled(keyword: str) -> dict[str, Any]:
    return {keyword: [{"const": f"value{number}", "title": f"Value {number}"} for number in (1, 2)]}


class Choices(BaseModel):
    untitledSingle: str = Field(json_schema_extra={"enum": ["option1", "option2"]})
    titledSingle: str = Field(json_schema_extra=titled("oneOf"))
    legacyEnum: str = Field(json_schema_extra={"enum": ["opt1", "opt2"], "enumNames": ["Option 1", "Option 2"]})
    untitledMulti: list[str] = Field(json_schema_extra={"items": {"type": "string", "enum": ["option1", "option2"]}})
    titledMulti: list[str] = Field(json_schema_extra={"items": titled("anyOf")})


def add_conversations(server: MCPServer) -> None:
    """Tools that speak with their client while they run."""

    @server.tool("test_tool_with_logging", description="Log three lines")
    async def tool_with_logging(context: Context) -> str:
        for line in ("started", "works", "ends"):
            await context.info(line)
        return "done"

    @server.tool("test_logging_tool", description="Log a line")
    async def logging_tool(context: Context) -> str:
        await context.info("a line")
        return "done"

    @server.tool("test_tool_with_progress", description="Report progress three times")
    async def tool_with_progress(context: Context) -> str:
        for progress in (0, 50, 100):
            await context.report_progress(progress, 100)
        return "done"

    @server.tool("test_sampling", description="Ask the client's model")
    async def sampling(prompt: str, context: Context) -> str:
        message = SamplingMessage(role="user", content=text(prompt))
        answer = await context.session.create_message(
            messages=[message], max_tokens=100, related_request_id=context.request_id
        )
        return f"the model says {answer.content}"

    @server.tool("test_elicitation", description="Ask the client's user")
    async def elicitation(message: str, context: Context) -> str:
        return f"the user says {await context.elicit(message=message, schema=Name)}"

    @server.tool("test_elicitation_sep1034_defaults", description="Ask the client's user with defaults")
    async def elicitation_sep1034_defaults(context: Context) -> str:
        return f"the user says {await context.elicit(message='Who are you?', schema=Defaults)}"

    @server.tool("test_elicitation_sep1330_enums", description="Ask the client's user to choose")
    async def elicitation_sep1330_enums(context: Context) -> str:
        return f"the user says {await context.elicit(message='Choose', schema=Choices)}"

    @server.tool("test_streaming_elicitation", description="Report progress, then need a name")
    async def streaming_elicitation(context: Context) -> str | InputRequiredResult:
        await context.report_progress(1, 2)
        match (context.input_responses or {}).get("user_name"):
            case ElicitResult():
                return "done"
        return needs(user_name=ask("What is your name?", "name"))

    @server.tool("test_missing_capability", description="Need a client that can sample")
    async def missing_capability(context: Context) -> str:
        able = context.session.client_capabilities
        if able is None or able.sampling is None:
            needed: dict[str, Any] = {"requiredCapabilities": {"sampling": {}}}
            raise MCPError(MISSING_REQUIRED_CLIENT_CAPABILITY, "needs `sampling`", needed)
        return "done"

    @server.tool("test_reconnection", description="Close the stream and go on")
    async def reconnection(context: Context) -> str:
        await context.close_sse_stream()
        return "done"


def ask(message: str, *fields: str, type_: str = "string") -> ElicitRequest:
    schema = {"type": "object", "properties": {field: {"type": type_} for field in fields}, "required": list(fields)}
    return ElicitRequest(params=ElicitRequestFormParams(message=message, requested_schema=schema))


def sample(prompt: str) -> CreateMessageRequest:
    messages = [SamplingMessage(role="user", content=text(prompt))]
    return CreateMessageRequest(params=CreateMessageRequestParams(messages=messages, max_tokens=50))


def needs(state: str | None = None, **requests: InputRequest) -> InputRequiredResult:
    return InputRequiredResult(input_requests=dict(requests), request_state=state)


def add_inputs(server: MCPServer) -> None:
    """Tools that end with `input_required` and are called again with the answers (MCP 2026-07-28)."""

    @server.tool("test_input_required_result_elicitation", description="Need a name")
    async def input_required_result_elicitation(context: Context) -> str | InputRequiredResult:
        match (context.input_responses or {}).get("user_name"):
            case ElicitResult(content={"name": name}):
                return f"Hello, {name}!"
        return needs(user_name=ask("What is your name?", "name"))

    @server.tool("test_input_required_result_sampling", description="Need a model")
    async def input_required_result_sampling(context: Context) -> str | InputRequiredResult:
        match (context.input_responses or {}).get("capital_question"):
            case CreateMessageResult() as answer:
                return f"the model says {answer.content}"
        return needs(capital_question=sample("What is the capital of France?"))

    @server.tool("test_input_required_result_list_roots", description="Need roots")
    async def input_required_result_list_roots(context: Context) -> str | InputRequiredResult:
        match (context.input_responses or {}).get("client_roots"):
            case ListRootsResult() as answer:
                return f"{len(answer.roots)} roots"
        return needs(client_roots=ListRootsRequest())

    @server.tool("test_input_required_result_request_state", description="Need a yes, and keep state")
    async def input_required_result_request_state(context: Context) -> str | InputRequiredResult:
        if context.request_state == "asked" and "confirm" in (context.input_responses or {}):
            return "state-ok"
        return needs("asked", confirm=ask("Do you confirm?", "ok", type_="boolean"))

    @server.tool("test_input_required_result_tampered_state", description="Keep state that nobody may change")
    async def input_required_result_tampered_state(context: Context) -> str | InputRequiredResult:
        if context.request_state is not None:
            return "state-ok"
        return needs("asked", confirm=ask("Do you confirm?", "ok", type_="boolean"))

    @server.tool("test_input_required_result_multiple_inputs", description="Need three things at once")
    async def input_required_result_multiple_inputs(context: Context) -> str | InputRequiredResult:
        if (context.input_responses or {}).keys() >= {"user_name", "greeting", "client_roots"}:
            return "all are there"
        return needs(
            "asked",
            user_name=ask("What is your name?", "name"),
            greeting=sample("Greet"),
            client_roots=ListRootsRequest(),
        )

    @server.tool("test_input_required_result_multi_round", description="Need two things, one after the other")
    async def input_required_result_multi_round(context: Context) -> str | InputRequiredResult:
        match context.request_state, context.input_responses or {}:
            case "second", {"step2": _}:
                return "both are there"
            case "first", {"step1": _}:
                return needs("second", step2=ask("What is your favorite color?", "color"))
        return needs("first", step1=ask("What is your name?", "name"))

    @server.tool("test_input_required_result_capabilities", description="Need what the client can do")
    async def input_required_result_capabilities(context: Context) -> InputRequiredResult:
        able = context.client_capabilities
        requests: dict[str, InputRequest] = {}
        if able is not None and able.sampling is not None:
            requests["sample"] = sample("Greet")
        if able is not None and able.elicitation is not None:
            requests["ask"] = ask("What is your name?", "name")
        return needs("asked", **requests)

    @server.prompt("test_input_required_result_prompt", description="A prompt that needs context")
    async def input_required_result_prompt(context: Context) -> list[UserMessage] | InputRequiredResult:
        match (context.input_responses or {}).get("user_context"):
            case ElicitResult(content={"context": said}):
                return [UserMessage(f"In this context: {said}")]
        return needs(user_context=ask("In which context?", "context"))


def add_changes(server: MCPServer) -> None:
    """Tools that change what the server lists."""

    @server.tool("test_trigger_tool_change", description="Add a tool and take it away")
    async def trigger_tool_change(context: Context) -> str:
        server.add_tool(lambda: "new", name="test_new_tool")
        server.remove_tool("test_new_tool")
        await context.notify_tools_changed()
        return "done"

    @server.tool("test_trigger_prompt_change", description="Add a prompt and take it away")
    async def trigger_prompt_change(context: Context) -> str:
        server.add_prompt(Prompt.from_function(lambda: "new", name="test_new_prompt"))
        server.remove_prompt("test_new_prompt")
        await context.notify_prompts_changed()
        return "done"


def add_resources(server: MCPServer) -> None:
    @server.resource("test://static-text", mime_type="text/plain")
    def static_text() -> str:
        return "This is the content of the static text resource."

    @server.resource("test://static-binary", mime_type="image/png")
    def static_binary() -> bytes:
        return b64decode(PIXEL)

    @server.resource("test://watched-resource", mime_type="text/plain")
    def watched() -> str:
        return "watched"

    @server.resource("test://template/{id}/data", mime_type="application/json")
    def data_of(id: str) -> str:
        return json.dumps({"id": id, "templateTest": True})


def add_prompts(server: MCPServer) -> None:
    @server.prompt("test_simple_prompt", description="A prompt without arguments")
    def simple_prompt() -> list[UserMessage]:
        return [UserMessage("This is a simple prompt for testing.")]

    @server.prompt("test_prompt_with_arguments", description="A prompt with two arguments")
    def prompt_with_arguments(arg1: str, arg2: str) -> list[UserMessage]:
        return [UserMessage(f"Prompt with arguments: arg1='{arg1}', arg2='{arg2}'")]

    @server.prompt("test_prompt_with_embedded_resource", description="A prompt with a resource within")
    def prompt_with_embedded_resource(resourceUri: str) -> list[UserMessage]:
        return [UserMessage(embedded(resourceUri, "text/plain", "A resource.")), UserMessage("Use it.")]

    @server.prompt("test_prompt_with_image", description="A prompt with an image")
    def prompt_with_image() -> list[UserMessage]:
        return [UserMessage(picture()), UserMessage("Describe it.")]


def add_methods(server: MCPServer) -> None:
    """Methods that `MCPServer` does not have by itself."""

    async def accept(context: ServerRequestContext, params: object) -> EmptyResult:
        return EmptyResult()

    low = server._lowlevel_server
    low.add_request_handler("logging/setLevel", SetLevelRequestParams, accept)
    low.add_request_handler("resources/subscribe", SubscribeRequestParams, accept)
    low.add_request_handler("resources/unsubscribe", UnsubscribeRequestParams, accept)

    @server.completion()  # type: ignore[untyped-decorator]
    async def complete(
        ref: PromptReference | ResourceTemplateReference,
        argument: CompletionArgument,
        context: CompletionContext | None,
    ) -> Completion:
        return Completion(values=[f"{argument.value}1"], total=1, has_more=False)
