"""The same laboratory in JupyterLab, with a live kernel: Train trains."""

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from playwright.sync_api import TimeoutError

from .conftest import ROOT, Watched, press, set_number, until

TOKEN = "test"
# All of it in one process, whose server and kernel the tests share.
pytestmark = pytest.mark.xdist_group("jupyterlab")


@pytest.fixture(scope="module")
def jupyterlab(tmp_path_factory):
    tmp_path = tmp_path_factory.mktemp("jupyterlab")
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    make = (
        "from robustnb.widgets import Laboratory\n"
        "labs = [*globals().get('labs', []), Laboratory('Does it train?', width=8, depth=3, device='cpu')]"
    )
    ask = "labs[-2]._worker.join(30)\nprint('the one before trains:', labs[-2]._worker.is_alive())\nlabs[-1]._data = None"
    cells = [new_code_cell(f"{make}\nlabs[-1]"), new_code_cell(ask)]
    nbformat.write(new_notebook(cells=cells, metadata=kernel), tmp_path / "lab.ipynb")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}", "--ip=127.0.0.1"]
    command += [f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={tmp_path}", "--LabApp.news_url="]
    command += [f"--LabApp.workspaces_dir={tmp_path / 'workspaces'}", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    with (tmp_path / "log").open("w", encoding="utf-8") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd=tmp_path)
        try:
            for _ in range(120):
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/api/status?token={TOKEN}", timeout=2)
                    break
                except (urllib.error.URLError, OSError):
                    time.sleep(0.5)
            else:
                pytest.fail("JupyterLab did not start: " + (tmp_path / "log").read_text(encoding="utf-8"))
            yield f"http://127.0.0.1:{port}/lab/tree/lab.ipynb?token={TOKEN}"
        finally:
            server.terminate()
            server.wait(timeout=30)


@pytest.fixture(scope="module")
def notebook(jupyterlab, browser):
    page = browser.new_page()
    watched = Watched(page)
    page.goto(jupyterlab)
    page.get_by_text("| Idle").wait_for(timeout=60_000)
    yield watched
    page.close()


def new_laboratory(page):
    page.locator(".rnb-lab").evaluate_all("labs => labs.forEach((lab) => lab.classList.add('old'))")
    lab = page.locator(".rnb-lab:not(.old)")
    run_cell(page, 0, lab)
    return lab


def run_cell(page, index, result):
    """Run a cell until its result shows: JupyterLab can lose a key that comes while it is still settling."""
    for _ in range(3):
        page.locator(".jp-Notebook .jp-CodeCell .cm-content").nth(index).click(timeout=60_000)
        page.keyboard.press("Shift+Enter")
        with contextlib.suppress(TimeoutError):
            result.wait_for(timeout=30_000)
            return


def test_a_closed_output_ends_the_thread_and_an_exception_shows(notebook):
    page = notebook.page
    new_laboratory(page)
    set_number(page, "epochs", 1000)
    press(page, "Train")
    until(page, "Epoch ")
    new_laboratory(page)  # the output that showed the other one goes
    run_cell(page, 1, page.get_by_text("the one before trains: False"))
    press(page, "Train")
    page.locator(".rnb-error", has_text="AttributeError").wait_for()
    page.locator(".jp-OutputArea-output", has_text="Traceback (most recent call last)").last.wait_for()


def test_train_adds_a_point_and_a_second_train_ends_the_first(notebook):
    page = notebook.page
    lab = new_laboratory(page)
    points = lab.locator(".rnb-main .rnb-mine")
    train = lab.get_by_role("button", name="Train", exact=True)
    assert points.count() == 0

    set_number(page, "epochs", 2)
    train.click()
    page.wait_for_function("document.querySelectorAll('.rnb-main .rnb-mine').length === 1", timeout=60_000)
    until(page, "Done: P/ε = ")

    set_number(page, "epochs", 1000)
    train.click()
    page.wait_for_function("/Epoch [1-9]/.test(document.querySelector('.rnb-status').innerText)", timeout=60_000)
    set_number(page, "epochs", 3)
    train.click()
    page.wait_for_function("document.querySelectorAll('.rnb-main .rnb-mine').length === 2", timeout=60_000)
    until(page, "Done: P/ε = ")

    set_number(page, "epochs", 1000)
    train.click()
    page.wait_for_function("/Epoch [1-9]/.test(document.querySelector('.rnb-status').innerText)", timeout=60_000)
    lab.get_by_role("button", name="Stop").click()
    page.wait_for_function("document.querySelector('.rnb-status').innerText.includes('Stopped at epoch')", timeout=60_000)
    assert points.count() == 2
    assert lab.locator(".rnb-error").inner_text() == ""
    assert [trouble for trouble in notebook.trouble if "page error" in trouble] == []


def test_make_lab_asks_for_a_token_and_listens_to_this_machine_alone(tmp_path):
    """With the command of the Makefile, and the settings of nobody."""
    planned = subprocess.run(["make", "-n", "lab"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    command = planned.splitlines()[-1].split()
    assert command[:2] == ["jupyter", "lab"]
    assert not [word for word in command if re.search(r"token|password|\bip\b|allow|config", word)]
    folders = {f"JUPYTER_{kind}_DIR": str(tmp_path / kind) for kind in ("CONFIG", "DATA", "RUNTIME")}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--port=0", *command[2:]]
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT, env=os.environ | folders)
    try:
        deadline = time.monotonic() + 120
        while not (found := list(tmp_path.glob("RUNTIME/jpserver-*.json"))) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert found, (tmp_path / "log").read_text(encoding="utf-8")
        info = json.loads(found[0].read_text(encoding="utf-8"))
        time.sleep(1)
        assert len(info["token"]) >= 32
        answer = {}
        for token in ("", "wrong", info["token"]):
            try:
                answer[token] = urllib.request.urlopen(f"http://127.0.0.1:{info['port']}/api/contents?token={token}", timeout=10).status
            except urllib.error.HTTPError as refused:
                answer[token] = refused.code
        assert answer == {"": 403, "wrong": 403, info["token"]: 200}
        listening = {place.laddr.ip for place in psutil.Process(server.pid).net_connections() if place.status == psutil.CONN_LISTEN}
        assert "127.0.0.1" in listening <= {"127.0.0.1", "::1"}
    finally:
        server.terminate()
        server.wait(timeout=30)
