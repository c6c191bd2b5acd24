"""What the documents show works: every block of Python and of shell in them runs, every link leads somewhere."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from real_peers import torchvision_schemas

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def blocks(language: str) -> list[pytest.param]:
    """Every block of a language, by the heading above it."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for i, match in enumerate(m for m in FENCED.finditer(text) if m[1] == language):
            headings = re.findall(r"^#+ (.*)$", text[: match.start()], re.MULTILINE)
            found.append(pytest.param(match[2], id=f"{page.name}-{i}-{headings[-1]}"))
    return found


@pytest.mark.parametrize("code", blocks("python"))
def test_a_block_of_python_runs_as_it_stands(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torchvision_schemas()  # Transformers imports torchvision
    exec(compile(code, "<block>", "exec", dont_inherit=True), {"__name__": "__main__"})


@pytest.mark.parametrize("code", blocks("sh"))
def test_a_block_of_shell_says_what_is_there(code: str, tmp_path: Path) -> None:
    for line in code.splitlines():
        program = line.split()[0]
        assert program in ("make", "mixops", "pip", "git", "python"), f"{line!r}: no check for {program}"
        if program == "make":  # make test within make test would not end: see that it knows the target
            subprocess.run(["make", "-n", *line.split()[1:]], cwd=ROOT, check=True, capture_output=True)
        elif program == "pip":
            _check_extras(line)
        elif program == "mixops":
            _run_command(line, tmp_path)
        elif program == "python":  # what it does may take long, or a GPU: see that it knows its options
            module, *words = line.split()[2:]
            told = subprocess.run(
                [sys.executable, "-m", module, "--help"], cwd=ROOT, check=True, capture_output=True, text=True
            )
            assert all(word in told.stdout for word in words if word.startswith("--"))


def _check_extras(line: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = re.search(r"\[([\w,]+)\]", line)
    assert not named or set(named[1].split(",")) <= set(project["optional-dependencies"])


def _run_command(line: str, folder: Path) -> None:
    """The line through a shell, the installed command on its path, in a folder with photographs."""
    import sklearn

    (folder / "photos").mkdir(exist_ok=True)
    for photo in (Path(sklearn.__file__).parent / "datasets" / "images").glob("*.jpg"):
        shutil.copy(photo, folder / "photos")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", line], cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    made = re.search(r"-o (\S+)", line)
    assert not made or (folder / made[1]).stat().st_size > 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_map_of_the_folders_has_all_that_hold_code_and_names_modules_that_are_there() -> None:
    text = (ROOT / "docs" / "folders.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[[\w/]+\]\(\.\./([\w/]+)\) \| (.*) \|$", text, re.MULTILINE)
    code = [path.parent for top in ("mixops", "pipelines", "benches") for path in (ROOT / top).rglob("*.py")]
    assert {str(folder.relative_to(ROOT)) for folder in code} <= {folder for folder, _ in rows}
    named = [ROOT / folder / f"{name}.py" for folder, words in rows for name in re.findall(r"`(\w+)`", words)]
    assert len(named) > 40
    assert [path for path in named if not path.exists()] == []


def test_the_version_of_the_package_is_the_newest_in_the_changelog() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    first = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert first
    assert first[1] == version


def test_every_direct_dependency_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *(d for extra in project["optional-dependencies"].values() for d in extra)]
    names = {re.split(r"[\[<>=!~]", d)[0].lower().replace("_", "-") for d in wanted} - {"mixops"}
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {line.split("==")[0] for line in lines if line and not line.startswith("#")}
    assert names <= pinned
