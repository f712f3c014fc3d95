"""What is printed, and what `--json` writes: the same figures, and nothing that differs between two runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.detect import scores
from benchmarks.detect.runs import Run
from benchmarks.detect.scores import Scored
from ostiary.core.watch import NEW, notice

Row = Mapping[str, float]
HEAD = (
    f"{'':<26} {'benign':>6} {'resist':>6} {'compr':>6}  {'AUC':>5} {'AUC+r':>5}"
    f"  {'@1%':>5} {'@5%':>5}  {'before':>6} {'@5%':>5}  {'harms':>5}"
)


def tables(runs: Sequence[Run]) -> dict[str, dict[str, Row]]:
    """By table and row. `figures`: with the product as it is. `without`: less one rule, or less what was learnt.
    `drift`: false alarms in per cent at the bar of 1 % of who is as ever, where something about the agent is new.
    """
    whole = scores.unseen(runs)
    names = list(dict.fromkeys(run.suite for run in runs))
    found = {"figures": {name: _row([one for one in whole if one.run.suite == name]) for name in names}}
    found["figures"]["all"] = _row(whole)
    noticed = {one.detector for run in runs for session, event in run.calls for one in notice(NEW, session, event)}
    found["without"] = {name: _row(scores.unseen(runs, name)) for name in sorted(noticed)}
    found["without"]["what was learnt"] = _row(scores.unseen(runs, learns=False))
    bar = scores.threshold(whole, 0.01)
    found["drift"] = {
        "as ever": {"alarms": scores.alarms(whole, bar)},
        "a new agent": {"alarms": scores.alarms(scores.unseen(runs, learns=False), bar)},
        "a new model": {"alarms": scores.alarms(scores.exchanged(runs), bar)},
        "new tools": {"alarms": scores.alarms(scores.unseen(runs, forgets=True), bar)},
    }
    return found


def _row(scored: Sequence[Scored]) -> Row:
    kinds = [one.run.kind for one in scored]
    counts = {kind: float(kinds.count(kind)) for kind in ("benign", "resisted", "compromised")}
    return counts | dict(scores.figures(scored))


def text(found: Mapping[str, Mapping[str, Row]]) -> str:
    lines = [HEAD]
    for name in ("figures", "without"):
        for what, row in found[name].items():
            label = what if name == "figures" else f"without {what}"
            lines.append(
                f"{label:<26} {row['benign']:>6.0f} {row['resisted']:>6.0f} {row['compromised']:>6.0f}"
                f"  {row['auc']:>5.3f} {row['auc_resisted']:>5.3f}  {row['caught_1']:>5.1f} {row['caught_5']:>5.1f}"
                f"  {row['before_1']:>6.1f} {row['before_5']:>5.1f}  {row['harms_1000']:>5.2f}"
            )
    lines += [f"{what:<26} {row['alarms']:.2f} % false alarms" for what, row in found["drift"].items()]
    return "\n".join(lines)
