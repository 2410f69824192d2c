"""OpenAI's client for JavaScript, and the tests of the page; both speak to the session's server."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from conftest import needs

HERE = Path(__file__).parent
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def run(folder, *command, seconds, **environment):
    """Runs a command to its end; its output is shown where it fails."""
    path = needs(shutil.which(command[0]), command[0])
    done = subprocess.run(
        [path, *command[1:]],
        cwd=folder,
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=seconds,
        text=True,
        errors="replace",
    )
    assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout[-6000:]}"


def installed(folder):
    """What the lock file names, unless it is there already."""
    lock, done = folder / "package-lock.json", folder / "node_modules/.package-lock.json"
    if not done.is_file() or done.stat().st_mtime < lock.stat().st_mtime:
        run(folder, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", seconds=240)


@pytest.mark.timeout(360)
def test_the_javascript_client(server):
    folder = HERE / "js"
    installed(folder)
    run(folder, "node", "--test", "--test-reporter=spec", seconds=100, TERCEL_URL=server.url)


PAGE = HERE.parent / "browser"


@pytest.mark.timeout(360)
def test_the_parts_of_the_page():
    installed(PAGE)
    run(PAGE, "npm", "run", "unit", seconds=100)


@pytest.mark.timeout(480)
def test_the_page_in_a_browser(launch):
    browser = needs(next(filter(None, map(shutil.which, BROWSERS)), None), "chromium")
    installed(PAGE)
    # Its own server, so that what it stops and reloads disturbs nobody.
    server = launch("--max-context", "2048")
    run(PAGE, "npm", "run", "page", seconds=200, TERCEL_URL=server.url, CHROMIUM=browser)
