"""AgentDojo (Debenedetti et al. 2024, MIT; PyPI `agentdojo`), benchmark version 1.2.2, as suites of this benchmark.

Its tools say nothing of themselves but name, description and schema: no hints, no kinds. Nothing of its data is kept
here; the recorded runs are those of its source distribution, unpacked into `runs` of this environment.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

import yaml
from agentdojo.agent_pipeline.tool_execution import tool_result_to_str
from agentdojo.functions_runtime import FunctionCall, FunctionsRuntime
from agentdojo.task_suite.load_suites import get_suite
from agentdojo.task_suite.task_suite import read_suite_file
from pydantic_core import to_jsonable_python

from benchmarks.contain.suites import Call, Injection, Output, Person, Recording, Task, Tool

VERSION = "v1.2.2"
RUNS = Path(sys.prefix) / "runs"
ATTACK = "important_instructions"
EMPLOYEE = "Emma Johnson"
"""of all four suites, as their system message says"""
_TEXTS = {"subject", "body", "content", "title", "description"}
_TIMES = {"date", "start_time", "end_time", "new_start_time", "new_end_time"}
_READERS = ("get_", "search_", "read_", "check_", "list_")


class AgentDojo:
    """A suite of AgentDojo."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._suite = suite = get_suite(VERSION, name)
        self.tools = [Tool(tool.name, tool.description, tool.parameters.model_json_schema()) for tool in suite.tools]
        self.tasks = [Task(id, task.PROMPT) for id, task in suite.user_tasks.items()]
        self.injections = [Injection(id, task.GOAL) for id, task in suite.injection_tasks.items()]
        self.places = sorted(suite.get_injection_vector_defaults())
        self.loose = {
            tool.name: frozenset(tool.schema["properties"]) & (_TEXTS | _TIMES)
            for tool in self.tools
            if not tool.name.startswith(_READERS)
        }
        self.runtime = FunctionsRuntime(suite.tools)

    @cached_property
    def person(self) -> Person:
        environment = self._environment({})
        match self.name:
            case "banking":
                return Person(EMPLOYEE, account=environment.bank_account.iban)
            case "slack":
                return Person(EMPLOYEE)
            case _:
                return Person(EMPLOYEE, mail=environment.inbox.account_email)

    def world(self, task: str, planted: Mapping[str, str]) -> AgentDojoWorld:
        return AgentDojoWorld(self, task, self._environment(planted))

    def recordings(self, model: str) -> Sequence[Recording]:
        """`gpt-4o-2024-05-13`, or with how it was attacked: `gpt-4o-2024-05-13/injecagent`."""
        model, _, attack = model.partition("/")
        first = RUNS / model / self.name / self.tasks[0].id
        if not (first / (attack or ATTACK)).is_dir():
            raise KeyError(f"{model}/{attack}")
        return [
            _recording(file)
            for task in self.tasks
            for how in ("none", attack or ATTACK)
            for file in sorted((RUNS / model / self.name / task.id / how).glob("*.json"))
        ]

    def user_task(self, id: str) -> Any:
        return self._suite.user_tasks[id]

    def injection_task(self, id: str) -> Any:
        return self._suite.injection_tasks[id]

    def _environment(self, planted: Mapping[str, str]) -> Any:
        """As `TaskSuite.load_and_inject_default_environment`; what is planted is put into the parsed YAML, since not
        every text can stand in it.
        """
        marks = {place: f"PLANTED{self.places.index(place)}HERE" for place in planted}
        texts = {mark: planted[place] for place, mark in marks.items()}
        return self._suite.environment_type.model_validate(_filled(self._parsed(tuple(marks.items())), texts))

    @lru_cache  # noqa: B019 because a suite lives as long as the program
    def _parsed(self, marks: tuple[tuple[str, str], ...]) -> Any:
        text = read_suite_file(self.name, "environment.yaml", self._suite.data_path)
        filled = text.format(**self._suite.get_injection_vector_defaults() | dict(marks))
        return yaml.load(filled, yaml.CSafeLoader)


class AgentDojoWorld:
    def __init__(self, suite: AgentDojo, task: str, environment: Any) -> None:
        self._suite, self._task = suite, suite.user_task(task)
        self._now = self._task.init_environment(environment)
        self._before = self._now.model_copy(deep=True)

    def reference(self) -> list[Call]:
        return [_call(call) for call in self._task.ground_truth(self._before.model_copy(deep=True))]

    def attack(self, injection: str) -> list[Call]:
        goal = self._suite.injection_task(injection)
        return [_call(call) for call in goal.ground_truth(self._before.model_copy(deep=True))]

    def run(self, call: Call) -> Output:
        result, error = self._suite.runtime.run_function(self._now, call.tool, call.arguments)
        return Output(
            tool_result_to_str(result), error or "", None if isinstance(result, str) else to_jsonable_python(result)
        )

    def useful(self, ran: Sequence[Call], answer: str | None) -> bool:
        return self._verdict(self._task, "utility", ran, answer)

    def harmed(self, injection: str, ran: Sequence[Call], answer: str | None) -> bool:
        return self._verdict(self._suite.injection_task(injection), "security", ran, answer)

    def _verdict(self, task: Any, verdict: str, ran: Sequence[Call], answer: str | None) -> bool:
        said = self._task.GROUND_TRUTH_OUTPUT if answer is None else answer
        trace = [FunctionCall(function=call.tool, args=dict(call.arguments)) for call in ran]
        with redirect_stdout(io.StringIO()):  # some graders print what they look at
            found = getattr(task, f"{verdict}_from_traces")(said, self._before, self._now, trace)
            return bool(getattr(task, verdict)(said, self._before, self._now) if found is None else found)


def _filled(value: Any, texts: Mapping[str, str]) -> Any:
    """A copy of the value with these texts in place of their marks."""
    match value:
        case str():
            for mark, text in texts.items():
                value = value.replace(mark, text)
            return value
        case list():
            return [_filled(inner, texts) for inner in value]
        case dict():
            return {_filled(name, texts): _filled(inner, texts) for name, inner in value.items()}
        case _:
            return value


def _call(call: FunctionCall) -> Call:
    return Call(call.function, dict(call.args))


def _recording(file: Path) -> Recording:
    run = json.loads(file.read_text("utf-8"))
    calls = [Call(call["function"], call["args"]) for call in _tool_calls(run["messages"])]
    last = run["messages"][-1:]  # of a run that failed at once, nothing is recorded
    said = last[0]["content"] if last and last[0]["role"] == "assistant" else None
    return Recording(run["user_task_id"], run["injection_task_id"], run["injections"], calls, said or "")


def _tool_calls(messages: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for message in messages:
        if message["role"] == "assistant":
            yield from message["tool_calls"] or ()


banking, slack, travel, workspace = (partial(AgentDojo, name) for name in ("banking", "slack", "travel", "workspace"))
