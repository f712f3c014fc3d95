"""The rules of words and signatures: docstrings, names, help texts, parameters, and phrases that puzzle a stranger.

`python -m tests.architecture.language PACKAGE ...` prints the places that break a rule, of all packages or of those
named (`ostiaryd/policy`, `docs`).
"""

from __future__ import annotations

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import TypeGuard

from tests.support.sources import ROOT, Source, files, sources

RULES = {
    "openings": "a docstring begins with a verb or a noun, not with `One`, a pronoun, a question word or a preposition",
    "clauses": "a docstring names the thing: no clause with `what` as its noun",
    "undocumented": "a public function has a docstring",
    "returns": "`Return whether` is the docstring of a function that returns, `Yield` of one that yields",
    "idle": "a string by itself documents a module, a class, a function or an assignment",
    "parameters": "a function has at most 8 parameters by position, and at most 12 with those by name",
    "repeated": "no word stands twice in a row",
    "classes": "the name of a public class is unique in its package",
    "help": "the help of a command begins with an imperative verb",
    "phrases": "a phrase that LANGUAGE bans",
    "subjects": "a sentence of a page does not begin with `It`, `They`, `Its` or `Their`, but names the thing",
    "names": "a name is a noun or a verb with an object, not a participle or a pronoun",
    "formatter": "no line switches the formatter off",
    "tests": "the name of a test is a sentence whose subject is the thing, not a pronoun or a question word",
}
"""Each rule, and what it asks for."""

BY_POSITION, PARAMETERS = 8, 12
MORE_PARAMETERS = {
    "ostiary.agent.asynchronous": "the keyword arguments of `AsyncAgent.task` are the members of a request",
    "ostiary.agent.blocking": "the keyword arguments of `Agent.task` are the members of a request",
    "ostiary.agent.identity": "the keyword arguments are the members of a request",
}
"""Module: why a function in it has more parameters. The parameters of a command are its options."""

_ONE_OR_WHAT = r"raises|what|one(?! \w+ per\b)"
ONE_OR_WHAT = re.compile(rf"({_ONE_OR_WHAT})(?![\w'-])", re.IGNORECASE)
"""How a docstring may not begin anywhere in the tree, tests and benchmarks included."""
CLAUSE = re.compile(r"\bwhat\b(?!-if)", re.IGNORECASE)
REPEATED = re.compile(
    r"(?<![\w'-])(a|an|and|are|as|at|be|by|for|from|if|in|is|it|not|of|on|or|that|the|to|with)\s+\1(?![\w'-])"
)
OPENING = re.compile(
    rf"({_ONE_OR_WHAT}"
    r"|whatever|whether|who|whoever|whom|whose|where|wherever|when|whenever|why|how|which|whichever"
    r"|it|its|they|them|their|theirs|those|these|that|this|he|she|him|his|her|hers|we|us|our|you|your|i"
    r"|(no|some|any|every)(body|thing|one)|none of|such|there|here|both|the same|as|by|for|of|to|with|without|in"
    r"|on|at|from|into|under|if|unless|so|because|and|or|but|not|no longer"
    r"|(the|any) one (that|who|whom|whose|which|with|of a)"
    r"|(all|everything|anything|the ones?) (that|who|which|of)|more than)(?![\w'-])",
    re.IGNORECASE,
)
"""How a docstring of the program may not begin. `The`, `Every`, `One entry per` and `All agents` are fine."""

PHRASES = (
    r"\b(some|any|every|no)body('s)?\b",
    r"\b(he|him|his|she|himself|herself)\b",
    r"\bno more\b(?!( \w+)? than\b)",
    r"\bonce more\b",
    r"\b(is|are|was|were|be|been|being) (told|said|heard)\b",
    r"\b(it|him|them)sel(f|ves) (ends?|dies|goes|comes)\b",
    r"\bby (it|him|her|them)sel(f|ves)\b",
    r"\bthat which\b",
    r"\b(those|these) (who|that|which)\b",
    r"\b((any|the|each|every|no) )?one (that|who|whom|whose|which)\b",
    r"\ball (that|who)\b",
    r"\bwho(m)?ever\b",
    r"\bof (evil|others'?)\b|\bevil\b",
    r"\b(gets?|got|getting) rid of\b",
    r"\btalked into\b",
    r"\blets? (it|him|her|them|an agent|one) go\b",
    r"\bbroken? the glass\b",
    r"\b(comes?|came) to (its|an|their) end\b",
    r"\bgone with\b|\bdies? with\b|\bdead\b(?! ?letter)",
    r"\bdoubt(s|ed|ful)?\b",
    r"\bfrom (the )?outside\b",
    r"\blook(ed)? twice\b",
    r"\banswers? for (it|them|an agent|agents|the agent)\b",
    r"\bknows? nothing of\b",
    r"\b(a|the|each|every|its|lower|upper|other|another|this|that) rooms?\b",
    r"\bas (is|was) said\b",
    r"\ball (came|comes|hangs) (of|on) (it|them|him)\b",
    r"\bwhat (others|they|it) (is|are|say|says|said|does|do)\b",
)
SENTENCE = r"(?:(?<=^)|(?<=[.!?:;] ))(What|Who|Whom|Whose|Whoever|Where no)\s[^.?!]*\."
"""A statement whose subject is a question word. A question, or a heading without a full stop, is fine."""
BANNED = re.compile("|".join(PHRASES), re.IGNORECASE)
SUBJECTLESS = re.compile(SENTENCE)
UNNAMED = re.compile(r"(?:^(?:[-*] |\d+\. )?|(?<=[.!?] ))(?:It|They|Its|Their)\b[^.?!]*")
"""A sentence whose subject stands in the sentence before: a reader who sees the sentence alone cannot name it."""

PUZZLE = re.compile(
    r"test_(who|whom|whose|what|which|whatever|whoever|whichever|nobody|nothing|none|it|they|of|so|one_that)_"
    r"|.*_(so_many|so_much|nobody|but_for|a_yes|a_no|yes|tells|told|hears?|whoever|whatever|whom)(_|$)"
)
"""A name of a test that says too little to a reader who does not see its body."""

COMMENT = re.compile(r"^ *# ?(.+(?:\n *# ?.+)*)|(?<=  )# (.+)$", re.MULTILINE)
"""A block of comment lines, or the comment behind a statement."""

_NAMES = """
asked beside found given heard held here judged known learnt looking meant said seen taken there together told
unheard wanted what who whom whose
"""
NAMES = frozenset(_NAMES.split())
"""Names that say nothing of the value. A public name that a user has stored or scripts rely on is renamed in one go."""

_VERBS = """
Accept Acknowledge Activate Add Alert Allow Answer Apply Approve Ask Assign Attach Begin Cancel Change Check Classify
Clear Close Compare Compile Complete Configure Confirm Connect Convert Copy Create Cut Deactivate Decide Declare
Decommission Delegate Delete Deliver Demonstrate Deny Describe Detach Disable Discard Distrust Download Draft Edit
Enable End Enforce Enrol Enroll Evaluate Exchange Explain Export Extend Fetch Find Follow Forbid Forget Forward
Generate Get Grant Guard Ignore Import Initialize Inspect Install Introspect Invalidate Issue Keep Label Let Lift Link
List Load Lock Log Look Make Manage Map Mark Measure Merge Migrate Move Narrow Notify Open Pause Permit Print Probe
Propose Protect Prove Publish Put Quarantine Query Read Rebuild Receive Record Recover Redeem Refresh Refuse Register
Reject Seal
Release Remove Rename Render Renew Replace Replay Report Request Require Reset Resolve Restore Restrict Resume Retry
Return Review Revoke Roll Rotate Run Save Say Scan Search See Send Serve Set Show Shut Sign Simulate Start Stop Store
Stream Subscribe Suggest Suspend Switch Tail Take Test Trace Transfer Trust Unlink Unlock Unsubscribe Update Upload
Validate Verify View Wait Watch Withdraw Write
"""
VERBS = frozenset(_VERBS.split())
"""Imperative verbs that begin a help text: a new one is added here on purpose."""


_YIELDED = re.compile(r"Iterator|Iterable|Generator|Flow|Steps|Waits")
"""Types of the results of functions that yield."""


@dataclass(frozen=True, slots=True)
class Offence:
    """A place that breaks `rule`: `path:line` and the words."""

    package: str
    rule: str
    place: str
    words: str


@cache
def offences() -> tuple[Offence, ...]:
    """Return every offence of `src/`, the strings of all other modules, and the phrases of the documentation."""
    program = [offence for source in sources("src") for offence in _of_module(source)]
    every = [source for folder in ("benchmarks", "docs", "harness", "src", "tests") for source in sources(folder)]
    modules = [offence for source in every for offence in _of_any_module(source)]
    return (*dict.fromkeys((*program, *modules, *_of_classes(), *_of_pages())),)


def package(path: str) -> str:
    """Name the package of a file: `ostiaryd/policy`, `ostiary/guard`; `ostiary` for a module beside the packages."""
    parts = path.removeprefix("src/").split("/")
    return "/".join(parts[:2]) if len(parts) > 2 else parts[0]


def _of_module(source: Source) -> Iterator[Offence]:
    name = package(source.path)

    def offence(rule: str, line: int, words: str) -> Offence:
        return Offence(name, rule, f"{source.path}:{line}", " ".join(words.split())[:110])

    nodes = tuple(ast.walk(source.tree))
    for line, text in _docstrings(nodes):
        if OPENING.match(text):
            yield offence("openings", line, text)
        elif name != "ostiary/cli" and CLAUSE.search(_prose_of(text)):
            yield offence("clauses", line, text)
    for function in nodes if source.module not in MORE_PARAMETERS and not _is_of_commands(source) else ():
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef) and _has_many_parameters(function):
            yield offence("parameters", function.lineno, f"{function.name}()")
    for function in _public_functions(source.tree):
        if ast.get_docstring(function) is None:
            yield offence("undocumented", function.lineno, f"{function.name}()")
    if _is_of_commands(source):
        for line, text in _helps(nodes):
            if text.split(" ", 1)[0].rstrip(".,:;") not in VERBS:
                yield offence("help", line, text)
    for line, text in prose(nodes, source.text):
        for words in banned(text):
            yield offence("phrases", line, words)
    for line, word in _names(source.tree):
        if word.strip("_") in NAMES:
            yield offence("names", line, word)


def _of_any_module(source: Source) -> Iterator[Offence]:
    """Offences of every module, of tests and benchmarks too: openings, results, idle strings, repeated words."""

    def offence(rule: str, line: int, words: str) -> Offence:
        return Offence(package(source.path), rule, f"{source.path}:{line}", " ".join(words.split())[:110])

    for number, text in enumerate(source.text.splitlines(), 1):
        if re.search(r"  # fmt: ?(off|skip)$", text):
            yield offence("formatter", number, text)
    nodes = tuple(ast.walk(source.tree))
    for line, text in _docstrings(nodes):
        if ONE_OR_WHAT.match(text):
            yield offence("openings", line, text)
        if match := REPEATED.search(text):
            yield offence("repeated", line, text[max(0, match.start() - 30) : match.end() + 30])
    for line, text in _idle_strings(nodes):
        yield offence("idle", line, text)
    for node in nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            if _promises_another_result(node):
                yield offence("returns", node.lineno, f"{node.name}(): {ast.get_docstring(node)}")
            if PUZZLE.match(node.name) and node.name.startswith("test_"):
                yield offence("tests", node.lineno, node.name)


def _is_of_commands(source: Source) -> bool:
    """Return whether a module defines commands, whose functions are documented by their help."""
    return package(source.path) == "ostiary/cli" or source.module in {
        "ostiaryd.serve",
        "ostiaryd.recover",
        "ostiary.demo",
    }


def _has_many_parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Return whether a function has more parameters than the rule allows, without the object of a method."""
    names = [one.arg for one in (*function.args.posonlyargs, *function.args.args)]
    by_position = len(names) - (names[:1] in (["self"], ["cls"]))
    return by_position > BY_POSITION or by_position + len(function.args.kwonlyargs) > PARAMETERS


def _promises_another_result(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Return whether a docstring says that the function returns or yields something, and the function does not."""
    text, result = ast.get_docstring(function) or "", function.returns
    if text.startswith("Return whether"):
        return isinstance(result, ast.Constant) and result.value is None
    return text.startswith("Yield ") and isinstance(result, ast.expr) and not _YIELDED.search(ast.unparse(result))


def _idle_strings(nodes: Iterable[ast.AST]) -> Iterator[tuple[int, str]]:
    """Strings by themselves behind a statement that is no assignment: their constant went, and they stayed."""
    for node in nodes:
        for block in (getattr(node, name, None) for name in ("body", "orelse", "finalbody")):
            for before, statement in zip((None, *block), block, strict=False) if isinstance(block, list) else ():
                match statement:
                    case ast.Expr(value=ast.Constant(value=str(text)), lineno=line):
                        if not isinstance(before, ast.Assign | ast.AnnAssign) and not _is_docstring(node, before):
                            yield line, text


def _is_docstring(node: ast.AST, before: ast.stmt | None) -> bool:
    return before is None and isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)


def _prose_of(text: str) -> str:
    """Return a docstring without its code and its quotations."""
    return re.sub(r"`[^`]*`|\"[^\"]*\"", "", text)


def banned(text: str) -> Iterator[str]:
    """Yield each banned phrase of a text, with the words around it."""
    flat = " ".join(text.split())
    for match in (*BANNED.finditer(flat), *SUBJECTLESS.finditer(flat)):
        yield flat[max(0, match.start() - 30) : match.end() + 30]


def _docstrings(nodes: Iterable[ast.AST]) -> Iterator[tuple[int, str]]:
    """Docstrings of modules, classes and functions, and the strings that document an assignment."""
    for node in nodes:
        match node:
            case ast.Expr(value=ast.Constant(value=str(text)), lineno=line):
                yield line, text.strip()


def _public_functions(node: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Public functions of a module and public methods of its public classes, without functions inside functions."""
    for child in ast.iter_child_nodes(node):
        match child:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                marks = {ast.unparse(mark).rsplit(".", 1)[-1] for mark in child.decorator_list}
                if not name.startswith("_") and not marks & {"overload", "override", "setter"}:
                    yield child
            case ast.ClassDef(name=name):
                if not name.startswith("_"):
                    yield from _public_functions(child)
            case ast.If() | ast.Try():
                yield from _public_functions(child)


def _helps(nodes: Iterable[ast.AST]) -> Iterator[tuple[int, str]]:
    """Help texts of groups (`App(help=)`, `COMMANDS`) and of commands (docstrings), each from its first word."""
    for node in nodes:
        match node:
            case ast.Call(func=ast.Name(id="App")) | ast.Call(func=ast.Attribute(attr="command")):
                words = {word.arg: word.value for word in node.keywords}
                help_text, name = words.get("help"), words.get("name")
                if isinstance(help_text, ast.Constant) and ast.unparse(name or help_text) != "'ostiary'":
                    yield node.lineno, str(help_text.value)
            case ast.Tuple(elts=[ast.Constant(), ast.Constant(value=str(where)), ast.Constant(value=str(text)), *_]):
                if ":" in where:
                    yield node.lineno, text
            case ast.FunctionDef(lineno=line) | ast.AsyncFunctionDef(lineno=line):
                marks = " ".join(ast.unparse(mark) for mark in node.decorator_list)
                if re.search(r"\.(command|default)\b", marks):
                    yield line, ast.get_docstring(node) or "(no help)"


def prose(nodes: Collection[ast.AST], text: str) -> Iterator[tuple[int, str]]:
    """Docstrings, messages (strings of three words or more) and comments, neighbouring comment lines joined.

    The argument of `vocabulary("..")` is a list of words in lower case: data about a language, not prose.
    """
    lists = {id(node.args[0]) for node in nodes if _is_vocabulary(node)}
    for node in nodes:
        match node:
            case ast.Constant(value=str(words), lineno=line) if len(words.split()) > 2 and id(node) not in lists:
                yield line, words
    for comment in COMMENT.finditer(text):
        yield text.count("\n", 0, comment.start()) + 1, re.sub(r"\n *# ?", " ", comment[1] or comment[2])


def _is_vocabulary(node: ast.AST) -> TypeGuard[ast.Call]:
    """Return whether a node is a call `vocabulary("a an the")` with words in lower case and no punctuation."""
    match node:
        case ast.Call(func=ast.Name(id="vocabulary"), args=[ast.Constant(value=str(words))]):
            return re.fullmatch(r"[a-z0-9\s]+", words) is not None
    return False


def _names(scope: ast.AST) -> Iterator[tuple[int, str]]:
    """Names that a module binds: variables, parameters, functions and classes. A name counts once per function."""
    bound: set[tuple[int, str]] = set()
    _bind(scope, 1, bound)
    yield from sorted(bound)


def _bind(node: ast.AST, line: int, bound: set[tuple[int, str]]) -> None:
    """Add the names under a node, with the line of the scope that binds them."""
    for child in ast.iter_child_nodes(node):
        match child:
            case ast.AnnAssign(target=ast.Name()) if isinstance(node, ast.ClassDef) and _is_typed_dict(node):
                continue  # a member of a JSON body, which clients read: it is renamed in one go or not at all
            case ast.Name(id=name, ctx=ast.Store()) | ast.arg(arg=name):
                bound.add((line, name))
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            bound.add((child.lineno, child.name.lower()))
        scoped = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        _bind(child, child.lineno if isinstance(child, ast.expr | ast.stmt) and scoped else line, bound)


def _is_typed_dict(node: ast.ClassDef) -> bool:
    return any(isinstance(base, ast.Name) and base.id == "TypedDict" for base in node.bases)


def _of_classes() -> Iterator[Offence]:
    """Every definition of a public class after the first of its name in the package.

    An adapter is a package of its own: each is for another framework, and a program imports one of them.
    """
    places: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for source in sources("src"):
        for node in ast.walk(source.tree):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                scope = source.path if package(source.path) == "ostiary/adapters" else package(source.path)
                places[scope, node.name].append(f"{source.path}:{node.lineno}")
    for (_, word), where in places.items():
        for place in where[1:]:
            yield Offence(package(place), "classes", place, f"class {word}, also at {where[0]}")


def _of_pages() -> Iterator[Offence]:
    """Phrases of the documentation, outside of code. A decision record and a generated page keep their words."""
    for path in files():
        if path.endswith(".md") and not re.match(
            r"docs/(adr/\d|upstream/|reference/(cli|events|http|reasons|sdk)\.md)|(src|tests|benchmarks)/", path
        ):
            for line, text in paragraphs((ROOT / path).read_text("utf-8")):
                for words in banned(text):
                    yield Offence("docs", "phrases", f"{path}:{line}", words)
                for match in UNNAMED.finditer(text):
                    yield Offence("docs", "subjects", f"{path}:{line}", match[0][:110])


def paragraphs(page: str) -> Iterator[tuple[int, str]]:
    """Paragraphs of a Markdown page without its code, each with its first line."""
    block: list[str] = []
    first, fenced = 1, False
    for number, line in enumerate([*page.splitlines(), ""], 1):
        fence = line.lstrip().startswith("```")
        if fence or fenced or not line.strip():
            if block:
                yield first, re.sub(r"`[^`]*`", "`code`", re.sub(r"\]\([^)]*\)", "]", " ".join(block)))
            block = []
            fenced ^= fence
        else:
            if not block:
                first = number
            block.append(line.strip())


def main(packages: list[str]) -> int:
    """Print the offences of these packages, or of all; return 1 if there are any."""
    chosen = [offence for offence in offences() if not packages or offence.package in packages]
    for offence in sorted(chosen, key=lambda offence: (offence.rule, offence.place)):
        print(f"{offence.rule:12} {offence.place}: {offence.words}")
    return 1 if chosen else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
