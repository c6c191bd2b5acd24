"""A study from its command line to its page: ``Study`` says what it is, ``run_study`` is the command."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import figures
from evidence import COMMON, Claim, Measure, summary, verdicts
from folder import digests, fetched_images
from grid import Case, Grid, StudyError, Work, WorkFile, run_grid
from pages import markdown

BENCHES = Path(__file__).parent.parent
sys.path.append(str(BENCHES))

from machine import environment, load_average  # noqa: E402  # lies beside this folder
from report import write_text  # noqa: E402

SCHEMA = 2
RESULTS = BENCHES / "results" / "studies"
#: Numbers are kept to so many digits: more of them would say nothing.
DIGITS = 6


@dataclass(frozen=True)
class Study:
    """What is asked, and how.

    Args:
        name: of its script and its result.
        title: of its page.
        question: a paragraph: the claim, and what is run to look at it.
        cases: profile ("default", "full" or "tiny") -> case -> settings. "files" of a case lists the files of the data
            folder that it reads.
        methods: name -> what it is; the first is what the others are compared with.
        work: does one run: (case, method, seed) -> numbers by name; all measures among them.
        claims: what papers say.
        common: the numbers that the figure of differences shows behind ``lead``, and tables first; those of
            classification as it comes.
        measures: further numbers that tables show, in order.
        lead: the measure that the study is about, "" for the first: what the page of all studies shows of it.
        figures: name -> (report -> figure), beside the figure of differences.
        notes: what a reader must bear in mind.
        packages: whose versions matter, beside those that every report gives.
        seeds: paired runs of each case and method.
        alone: what is measured is time: no run has another beside it.
        gpu: a run takes a GPU where there is one.
    """

    name: str
    title: str
    question: str
    cases: Callable[[str], Mapping[str, Case]]
    methods: Mapping[str, str]
    work: Work
    claims: Sequence[Claim]
    common: Mapping[str, Measure] = field(default_factory=lambda: COMMON)
    measures: Mapping[str, Measure] = field(default_factory=dict)
    lead: str = ""
    figures: Mapping[str, Callable[[Mapping[str, Any]], Any]] = field(default_factory=dict)
    notes: Sequence[str] = ()
    packages: Sequence[str] = ()
    seeds: int = 10
    alone: bool = False
    gpu: bool = False

    @property
    def every_measure(self) -> dict[str, Measure]:
        """The common measures, then its own."""
        return {**self.common, **self.measures}


def run_study(study: Study, words: Sequence[str]) -> int:
    """The command of a study; its exit status: 0, or 1 after an error, which it has said."""
    given = _arguments(study, words)
    try:
        if not (given.page or given.reword):
            _run(study, given, words)
        report = read(given.out)
        if report["study"] != study.name:
            raise StudyError(f"{given.out} is of the study {report['study']}, expected {study.name}")
        if given.reword:
            report = reworded(study, report)
            write_text(_text(report), given.out)
        for path in write_page(study, report, given.out):
            print(path)
        for one in report["verdicts"]:
            print(f"{one['claim']}\n    {one['sentence']}")
    except (StudyError, OSError) as error:  # the latter names a place that cannot be read or written
        print(f"{study.name}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{study.name}: stopped; the same command goes on from here", file=sys.stderr)
        return 1
    return 0


def _run(study: Study, given: argparse.Namespace, words: Sequence[str]) -> None:
    profile = "tiny" if given.tiny else "full" if given.full else "default"
    cases = study.cases(profile)
    data = digests(name for case in cases.values() for name in case.get("files", ()))
    for name in sorted({case["fetch"] for case in cases.values() if case.get("fetch")}):
        fetched_images(name)  # here, once: two processes would fetch into the same files
    where = environment([1])
    where["versions"].update(_versions(study.packages))
    grid = Grid(study.name, cases, list(study.methods), given.seeds, study.work)
    facts = {"data": data, "versions": where["versions"]}
    file = WorkFile(given.out.with_suffix(".runs.jsonl"), grid.fingerprint(facts), given.fresh)
    before, clock, load = len(file.done), time.monotonic(), load_average()
    runs = run_grid(grid, file, given.processes)
    report = {
        "schema": SCHEMA,
        "study": study.name,
        "profile": profile,
        **_words(study),
        "command": _command(study, words),
        "seeds": given.seeds,
        "processes": given.processes,
        "device": _device(study.gpu),
        "cases": {name: dict(case) for name, case in cases.items()},
        "data": data,
        "environment": where,
        "load": {"start": load, "end": load_average()},
        "seconds": {"wall": time.monotonic() - clock, "runs": sum(r["seconds"] for r in runs)},
        "done_now": len(file.done) - before,
        "runs": _rounded(runs),
    }
    write_text(_text(_rounded({**report, **_judged(study, report)})), given.out)
    file.path.unlink()


def _words(study: Study) -> dict[str, Any]:
    """What a report says of its study, whatever the runs."""
    return {
        "title": study.title,
        "question": study.question,
        "methods": dict(study.methods),
        "measures": {name: asdict(measure) for name, measure in study.every_measure.items()},
        "lead": study.lead or next(iter(study.every_measure)),
        "notes": list(study.notes),
    }


def _judged(study: Study, report: Mapping[str, Any]) -> dict[str, Any]:
    """What the runs of a report show; they are rounded, so that who works the numbers out from the file gets these."""
    runs, cases = report["runs"], report["cases"]
    return {
        "summary": summary(runs, cases, list(study.methods), study.every_measure),
        "verdicts": verdicts(runs, cases, study.claims, study.every_measure),
    }


def reworded(study: Study, report: Mapping[str, Any]) -> dict[str, Any]:
    """The report in the words and by the claims that the study has now; its runs stay what they are.

    Raises:
        StudyError: if the study has other cases, methods or measures now than those that were run.
    """
    kept = report["cases"], list(report["methods"]), list(report["measures"])
    now = _rounded(study.cases(report["profile"])), list(study.methods), list(study.every_measure)
    for what, one, other in zip(("cases", "methods", "measures"), kept, now, strict=True):
        if one != other:
            raise StudyError(f"its report is of other {what} than the study has now: run it again")
    return _rounded({**report, **_words(study), **_judged(study, report)})  # type: ignore[no-any-return]


def read(path: Path) -> dict[str, Any]:
    """The report of a study.

    Raises:
        StudyError: if there is none, or it is no report or one of another version.
    """
    if not path.is_file():
        raise StudyError(f"there is no {path}: run the study without --page first")
    try:
        report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        schema = report.get("schema")
    except (ValueError, AttributeError) as error:
        raise StudyError(f"{path} is no report of a study ({error}): run the study again") from error
    if schema != SCHEMA:
        raise StudyError(f"{path}: version {schema}, expected {SCHEMA}: run the study again")
    return report


def write_page(study: Study, report: Mapping[str, Any], path: Path) -> list[Path]:
    """Write Markdown and figures beside the JSON, and say where."""
    # What the study is about comes first, whether it is common or its own.
    measures = {name: study.every_measure[name] for name in dict.fromkeys([report["lead"], *study.common])}
    drawn = {"differences": lambda r: figures.differences(r, measures), **study.figures}
    places = {name: path.with_name(f"{path.stem}_{name}.svg") for name in drawn}
    for name, place in places.items():
        write_text(figures.svg(drawn[name](report)), place)
    page = path.with_suffix(".md")
    write_text(markdown(report, [place.name for place in places.values()]), page)
    return [page, *places.values()]


def _arguments(study: Study, words: Sequence[str]) -> argparse.Namespace:
    # No short forms: ``_command`` looks for options by their names.
    parser = argparse.ArgumentParser(
        prog=f"python -m benches.studies {study.name}", description=study.title, allow_abbrev=False
    )
    parser.add_argument("--full", action="store_true", help="the whole grid, which takes long")
    parser.add_argument(
        "--tiny", action="store_true", help="small and on made-up data: shows that all runs; needs --out"
    )
    parser.add_argument("--page", action="store_true", help="run nothing: page and figures from the JSON that is there")
    parser.add_argument(
        "--reword",
        action="store_true",
        help="run nothing: words, claims and verdicts of the JSON as the study has them now, then the page",
    )
    parser.add_argument("--fresh", action="store_true", help="drop the runs that a stopped study has left")
    parser.add_argument("--seeds", type=int, default=study.seeds, help="paired runs (default %(default)s)")
    beside = 1 if study.alone else 2
    parser.add_argument("--processes", type=int, default=beside, help="runs side by side (default %(default)s)")
    parser.add_argument("--out", type=Path, help="the JSON, NAME.json; page and figures go beside it")
    given = parser.parse_args(words)
    if given.full and given.tiny:
        parser.error("--full and --tiny: expected one of them")
    if given.seeds < 2 or given.processes < 1:
        parser.error(
            f"--seeds {given.seeds} --processes {given.processes}: expected 2 seeds or more, for a spread, and 1 "
            "process or more"
        )
    if study.alone and given.processes > 1:
        parser.error(f"--processes {given.processes}: this study takes times, expected 1")
    if given.out is None:
        if given.tiny or given.seeds < study.seeds:
            parser.error(f"--tiny, and fewer seeds than {study.seeds}, need --out: that is no result to be committed")
        given.out = RESULTS / f"{study.name}{'_full' if given.full else ''}.json"
    if given.out.suffix != ".json" or given.out.is_dir():
        parser.error(f"--out {given.out}: expected a file NAME.json: the page takes NAME.md, figures NAME_*.svg")
    return given


def _command(study: Study, words: Sequence[str]) -> str:
    """What to type for the same runs; where the file lay is nobody's business."""
    parts = [word for i, word in enumerate(words) if word != "--out" and words[i - 1 : i] != ["--out"]]
    kept = [word for word in parts if not word.startswith("--out=") and word != "--fresh"]
    return shlex.join(["python", "-m", "benches.studies", study.name, *kept])


def _versions(packages: Sequence[str]) -> dict[str, str]:
    found = {}
    for package in (*packages, "scipy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _device(gpu: bool) -> str:
    import torch

    return torch.cuda.get_device_name() if gpu and torch.cuda.is_available() else "CPU"


def _rounded(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _rounded(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_rounded(one) for one in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def _text(report: Mapping[str, Any]) -> str:
    """JSON with a line for each run and each row, so that a change of one is a change of a line."""
    parts = []
    for key, value in report.items():
        if isinstance(value, list) and value:
            said = "[\n  " + ",\n  ".join(_json(one) for one in value) + "\n ]"
        elif isinstance(value, Mapping) and value:
            said = "{\n  " + ",\n  ".join(f"{_json(k)}: {_json(v)}" for k, v in value.items()) + "\n }"
        else:
            said = _json(value)
        parts.append(f" {_json(key)}: {said}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
