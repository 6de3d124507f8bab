"""Where a checkout lies, who runs it and in which surroundings: the tiny study runs to its end, with equal results."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from lowdata_cpt.jobs.collect import differences
from tests.workflow import tiny

pytestmark = pytest.mark.slow
NOBODY = 65534
TABLES = ("curves.csv", "selected.csv", "trivial_baselines.csv", "statistics/summary.csv", "claims.json")


def check_equal(results: Path, plain: Path) -> None:
    """Hold a study's scores and what is made of them to the plain run's."""
    assert differences(results / "scores.csv", plain / "scores.csv") is None
    for name in TABLES:
        assert (results / name).read_bytes() == (plain / name).read_bytes(), name
    assert (results / "report.html").stat().st_size > 10_000
    assert len(pd.read_csv(results / "scores.csv")) > 10


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A folder that every user may enter; pytest's own are closed to others."""
    place = Path(tempfile.mkdtemp(prefix="isolation-", dir="/tmp"))
    place.chmod(0o755)
    yield place
    shutil.rmtree(place, ignore_errors=True)


def test_a_path_with_blanks_and_letters_no_home_closed_files_and_the_locale_c(
    finished_study: Path, tmp_path: Path
) -> None:
    """Started from another folder, without git, with the temporary folder elsewhere."""
    project = tiny.tiny_study(tmp_path / "my studies" / "größe 大 (copy) 'n' ; &")
    elsewhere = tmp_path / "start from here"
    temporary = tmp_path / "temporary files"
    for folder in (elsewhere, temporary):
        folder.mkdir()
    tiny.run(
        elsewhere,
        "sh",
        "-c",
        'umask 077; exec snakemake --cores 2 --snakefile "$PROJECT/Snakefile" --directory "$PROJECT" --quiet all',
        PROJECT=str(project),
        HOME="/proc/no such home",
        TMPDIR=str(temporary),
        XDG_CACHE_HOME=str(project / ".cache"),
        LANG="C",
        LC_ALL="C",
        GIT_CEILING_DIRECTORIES=str(tmp_path),
    )
    check_equal(project / "results/quick", finished_study / "results/quick")
    assert not list(elsewhere.iterdir())


def another_user() -> tuple[str, ...]:
    """The command that runs others as a normal user: nobody, or root without powers where Python is root's alone."""
    ways = (
        ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"),
        ("setpriv", "--inh-caps=-all", "--bounding-set=-all"),
    )
    for way in ways:
        tried = [*way, "sh", "-c", "lowdata-cpt --help && snakemake --version"]
        if (
            shutil.which("setpriv")
            and not subprocess.run(
                tried, env=tiny.environment(), cwd=tiny.ROOT, capture_output=True, check=False
            ).returncode
        ):
            return way
    pytest.skip("becoming another user takes setpriv and root; whoever runs this test is a normal user already")


def test_a_normal_user_whose_home_is_read_only_writes_to_another_folder(finished_study: Path, open_place: Path) -> None:
    """Neither the checkout nor home can be written to: results go to `--directory`, caches to XDG_CACHE_HOME."""
    become = another_user()
    project, work, home = tiny.tiny_study(open_place / "checkout"), open_place / "work", open_place / "home"
    for folder in (work, home):
        folder.mkdir()
    if not os.geteuid():
        os.chown(work, *((NOBODY, NOBODY) if f"--reuid={NOBODY}" in become else (0, 0)))
    subprocess.run(["chmod", "-R", "a-w", str(project), str(home)], check=True)
    tiny.run(
        work,
        *become,
        *("snakemake", "--cores", "2", "--snakefile", str(project / "Snakefile"), "--directory", str(work)),
        *("--quiet", "all"),
        HOME=str(home),
        LOWDATA_DATA=str(project / "data"),
        XDG_CACHE_HOME=str(work / ".cache"),
    )
    check_equal(work / "results/quick", finished_study / "results/quick")
    assert not list(home.iterdir())


@pytest.mark.parametrize("home", ["/proc/no such home", None])
def test_make_keeps_caches_in_the_checkout_where_home_cannot_hold_them(home: str | None, tmp_path: Path) -> None:
    """Snakemake writes there before it does anything, and fails with a traceback where it cannot."""
    said = ["make", "-s", "--eval", "said: ; @echo cache=$$XDG_CACHE_HOME", "said"]
    found = tiny.run(tiny.ROOT, *said, HOME=home or str(tmp_path), XDG_CACHE_HOME="").stdout.strip()
    assert found == (f"cache={tiny.ROOT / '.cache'}" if home else "cache=")
