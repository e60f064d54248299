"""The journal: every result once, in its turn, whatever happens to the process that writes it.

What a process that was killed leaves behind is a copy of its folder, taken while it is at work.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from passivx.errors import PassivxError
from passivx.optimizer.journal import AHEAD, RESULTS, Journal

KEYS: Final = tuple("abcdefg")


def result(key: str, window: int = 0, **more: Any) -> dict[str, Any]:
    line: dict[str, Any] = {"key": key, "k": -1} | ({"window": window} if window else {})
    return line | {"x": 0.1, "objective": 1.5, "status": "done", "gain": 1.25} | more


def known(folder: Path) -> list[str]:
    """The keys of the lines in results.jsonl, every one of them whole."""
    text = (folder / RESULTS).read_text()
    assert text.endswith("\n") or not text
    return [json.loads(line)["key"] for line in text.splitlines()]


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path)
    yield journal
    journal.close(finished=False)


@pytest.fixture
def left(journal: Journal, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is left of a process killed when a, b, c were written and e, f, g ahead of d."""
    for key in "gbcfae":
        journal.put(result(key))
    for k, key in enumerate("abc"):
        journal.write((0, key), k)
    journal.spill()
    folder = tmp_path_factory.mktemp("left") / "session"
    shutil.copytree(tmp_path, folder)
    return folder


def finish(folder: Path) -> list[str]:
    """Go on with what was left of a to g as a session does; return what had to be run again."""
    journal = Journal(folder)
    again = [key for key in KEYS if (0, key) not in journal]
    for k, key in enumerate(KEYS):
        if key in again:
            journal.put(result(key))
        journal.write((0, key), k)
    journal.close(finished=True)
    return again


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """results.jsonl of a to g when nothing happens."""
    folder = tmp_path_factory.mktemp("whole")
    assert finish(folder) == list(KEYS)
    return (folder / RESULTS).read_bytes()


# Opens the journals of the folders, one after the other, and keeps them open until told to end.
OPEN = """
import sys
from pathlib import Path
from passivx.errors import PassivxError
from passivx.optimizer.journal import Journal
journals = []
for folder in sys.argv[1:]:
    try:
        journals.append(Journal(Path(folder)))
        print("open", flush=True)
    except PassivxError as e:
        print(f"{type(e).__name__}: {e}", flush=True)
sys.stdin.read()
"""


def elsewhere(*folders: Path) -> list[str]:
    """What another process that opens these journals says of each."""
    done = subprocess.run(
        [sys.executable, "-c", OPEN, *folders],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.splitlines()


# --- order


def test_lines_stand_in_the_order_of_their_turns_not_of_their_coming(
    journal: Journal, tmp_path: Path
) -> None:
    for key in "cab":
        journal.put(result(key))
    for k, key in zip((3, 5, 8), "abc", strict=True):
        journal.write((0, key), k)
    assert known(tmp_path) == ["a", "b", "c"]
    assert [line["k"] for line in journal.lines()] == [3, 5, 8]
    assert journal.line((0, "b")) == result("b", k=5)
    assert len(journal) == 3


def test_a_result_is_on_disk_when_its_turn_was_or_when_it_was_spilled(
    journal: Journal, tmp_path: Path
) -> None:
    journal.put(result("b"))
    assert (tmp_path / AHEAD).read_bytes() == b""
    journal.spill()
    assert json.loads((tmp_path / AHEAD).read_text()) == result("b")
    journal.spill()
    assert len((tmp_path / AHEAD).read_text().splitlines()) == 1
    journal.put(result("a"))
    journal.write((0, "a"), 0)
    journal.spill()  # what was written is not ahead of anything
    assert len((tmp_path / AHEAD).read_text().splitlines()) == 1
    assert known(tmp_path) == ["a"]


def test_a_name_is_a_window_and_a_key(journal: Journal) -> None:
    journal.put(result("a", 1))
    assert (1, "a") in journal
    assert (2, "a") not in journal
    assert (0, "a") not in journal
    journal.put(result("a", 2, objective=None, status="limit:max_loss"))
    journal.write((1, "a"), 0)
    journal.write((2, "a"), 0)
    assert journal.verdict((1, "a"))[:2] == ("done", 1.5)
    assert journal.verdict((2, "a"))[:2] == ("limit:max_loss", None)
    assert journal.verdict((3, "a")) is None


def test_a_later_process_knows_everything_and_ends_with_the_same_bytes(
    left: Path, whole: bytes
) -> None:
    journal = Journal(left)
    assert [key for key in KEYS if (0, key) in journal] == list("abcefg")
    assert len(journal) == 3
    journal.close(finished=False)
    assert finish(left) == ["d"]
    assert (left / RESULTS).read_bytes() == whole
    assert sorted(path.name for path in left.iterdir()) == [RESULTS]


def test_what_is_written_is_not_written_again(left: Path) -> None:
    before = (left / RESULTS).read_bytes()
    journal = Journal(left)
    for k, key in enumerate("abc"):
        journal.write((0, key), k)
    assert (left / RESULTS).read_bytes() == before
    journal.write((0, "f"), 7)
    assert json.loads((left / RESULTS).read_bytes().splitlines()[-1]) == result("f", k=7)
    journal.close(finished=False)


def test_a_result_both_ahead_and_written_counts_once(left: Path) -> None:
    # Its process was killed before it could forget what it had waited for.
    with (left / AHEAD).open("ab") as file:
        file.write((left / RESULTS).read_bytes().splitlines(keepends=True)[0])
    journal = Journal(left)
    assert len(journal) == 3
    assert [line["key"] for line in journal.lines()] == ["a", "b", "c"]
    journal.close(finished=False)
    assert finish(left) == ["d"]


def test_a_line_that_is_not_proposed_next_is_refused(left: Path) -> None:
    journal = Journal(left)
    journal.write((0, "a"), 0)
    with pytest.raises(PassivxError, match=r"results\.jsonl: line 2 is not what these settings"):
        journal.write((0, "c"), 1)
    journal.close(finished=False)
    assert known(left) == ["a", "b", "c"]


# --- torn lines


@pytest.mark.parametrize("name", [RESULTS, AHEAD])
def test_a_torn_last_line_is_cut_off_and_its_candidate_run_again(
    left: Path, whole: bytes, tmp_path: Path, name: str
) -> None:
    text = (left / name).read_bytes()
    begins = text[:-1].rindex(b"\n") + 1
    lost = json.loads(text[begins:])["key"]
    for cut in range(begins, len(text) + 1):
        folder = tmp_path / str(cut)
        shutil.copytree(left, folder)
        (folder / name).write_bytes(text[:cut])
        journal = Journal(folder)
        torn = begins < cut < len(text)
        assert journal.torn == [name] * torn, cut
        assert ((0, lost) in journal) == (cut == len(text)), cut
        journal.close(finished=False)
        assert (folder / name).read_bytes() == (text if cut == len(text) else text[:begins]), cut
        assert set(finish(folder)) == {"d"} | ({lost} if cut < len(text) else set()), cut
        assert (folder / RESULTS).read_bytes() == whole, cut
        shutil.rmtree(folder)


def test_both_files_may_be_torn_down_to_nothing(left: Path, whole: bytes) -> None:
    for name in (RESULTS, AHEAD):
        (left / name).write_bytes((left / name).read_bytes()[:20])
    journal = Journal(left)
    assert journal.torn == [RESULTS, AHEAD]
    assert len(journal) == 0
    journal.close(finished=False)
    assert finish(left) == list(KEYS)
    assert (left / RESULTS).read_bytes() == whole


BROKEN: Final = (
    b"", b"{", b'{"key": "b", "sta', b"\0\0\0\0", b"\xff\xfe", b'{"key": "b"}', b"nonsense",
    b'{"status": "done", "objective": 1.0}',
)  # fmt: skip


@pytest.mark.parametrize("name", [RESULTS, AHEAD])
def test_a_broken_line_in_the_middle_names_file_and_line(
    left: Path, tmp_path: Path, name: str
) -> None:
    texts: list[bytes] = []
    for i, broken in enumerate(BROKEN):
        folder = tmp_path / str(i)
        shutil.copytree(left, folder)
        lines = (folder / name).read_bytes().splitlines()
        texts.append(b"\n".join([lines[0], broken, *lines[2:]]) + b"\n")
        (folder / name).write_bytes(texts[i])
    folders = [tmp_path / str(i) for i in range(len(BROKEN))]
    assert elsewhere(*folders) == [
        f"DataError: {folder / name}:2: is no result of a session" for folder in folders
    ]
    assert [(folder / name).read_bytes() for folder in folders] == texts


# --- one process at a time


def test_a_second_process_is_refused_and_changes_nothing(journal: Journal, tmp_path: Path) -> None:
    journal.put(result("a"))
    journal.write((0, "a"), 0)
    message = f"PassivxError: {tmp_path}: another process is at this session"
    assert elsewhere(tmp_path) == [message]
    journal.put(result("b"))
    journal.write((0, "b"), 1)
    assert known(tmp_path) == ["a", "b"]


def test_a_killed_process_lets_go(left: Path, whole: bytes) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", OPEN, left], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"open\n"
        assert elsewhere(left) == [f"PassivxError: {left}: another process is at this session"]
        holder.kill()
        holder.wait()
        assert finish(left) == ["d"]
    assert (left / RESULTS).read_bytes() == whole


def test_a_folder_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    with pytest.raises(PassivxError, match=r"gone/results\.jsonl: cannot be written \(No such"):
        Journal(tmp_path / "gone")


# --- a full disk: no file may grow beyond a limit, so that a write stops in the middle


FULL = """
import resource, sys
from pathlib import Path
from passivx.errors import PassivxError
from passivx.optimizer.journal import Journal
from tests.optimizer.test_journal import KEYS, result
for limit in range(0, 480, 19):
    folder = Path(sys.argv[1]) / str(limit)
    folder.mkdir()
    journal = Journal(folder)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        for k, key in enumerate(KEYS):
            journal.put(result(key))
            if sys.argv[2] == "ahead":
                journal.spill()
            else:
                journal.write((0, key), k)
    except PassivxError as e:
        print(e)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
"""


@pytest.mark.parametrize(("way", "name"), [("results", RESULTS), ("ahead", AHEAD)])
def test_a_full_disk_is_said_and_leaves_what_can_be_resumed(
    tmp_path: Path, whole: bytes, way: str, name: str
) -> None:
    # Killed as it is, without a chance to tidy up.
    done = subprocess.run(
        [sys.executable, "-c", FULL, tmp_path, way], capture_output=True, text=True, check=True
    )
    messages = done.stdout.splitlines()
    folders = sorted(tmp_path.iterdir(), key=lambda folder: int(folder.name))
    assert len(messages) == len(folders)
    for folder, message in zip(folders, messages, strict=True):
        assert message.startswith(f"{folder / name}: cannot be written (")
        assert message.endswith("; --resume goes on from here")
        text = (folder / name).read_bytes()
        assert len(text) <= int(folder.name)
        journal = Journal(folder)
        assert journal.torn == ([name] if text and not text.endswith(b"\n") else [])
        journal.close(finished=False)
        assert finish(folder) == list(KEYS[text.count(b"\n") :])
        assert (folder / RESULTS).read_bytes() == whole
