"""Files are written whole or not at all, and nothing but a file is read: no link, no pipe, no device."""

import contextlib
import fcntl
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from transformer_jax import files
from transformer_jax.files import find_irregular, open_regular, read_bytes, remove_drafts, write_atomically

WRITER = """
import os, signal, sys
from pathlib import Path
from transformer_jax import files
def stop(descriptor):
    print("writing", flush=True)
    signal.pause()
files.os.fsync = stop
files.write_atomically(Path(sys.argv[1]), b"new")
"""


def a_link(path: Path) -> None:
    (path.parent / "victim").write_text("{}")
    path.symlink_to(path.parent / "victim")


def a_socket(path: Path) -> None:
    with contextlib.chdir(path.parent), socket.socket(socket.AF_UNIX) as listener:  # its path may have 107 bytes
        listener.bind(path.name)


IRREGULAR: dict[str, tuple[Callable[[Path], None], str]] = {
    "pipe": (os.mkfifo, "is no regular file"),
    "socket": (a_socket, "is no regular file"),
    "link": (a_link, "is a link"),
    "link to a device": (lambda path: path.symlink_to("/dev/zero"), "is a link"),
    "broken link": (lambda path: path.symlink_to("nowhere"), "is a link"),
    "directory": (Path.mkdir, "is a directory"),
}


@pytest.mark.parametrize("kind", IRREGULAR)
@pytest.mark.parametrize("mode", ["rb", "r+b", "a+b"])
def test_only_regular_files_are_opened(tmp_path, kind, mode):
    make, said = IRREGULAR[kind]
    make(tmp_path / "x")
    with pytest.raises(OSError, match=said) as refused:
        open_regular(tmp_path / "x", mode)
    assert refused.value.filename == str(tmp_path / "x")
    assert not (tmp_path / "nowhere").exists()


def test_what_was_exchanged_after_a_look_is_not_opened(tmp_path, monkeypatch):
    """Between the look and the opening somebody puts a pipe, or a link, in the place of the file."""
    for kind in ("pipe", "link"):
        path = tmp_path / kind
        path.write_text("a")
        look = Path.stat

        def exchange(self, look=look, kind=kind, **how):
            found = look(self, **how)
            self.unlink()
            IRREGULAR[kind][0](self)
            return found

        with monkeypatch.context() as patch:
            patch.setattr(Path, "stat", exchange)
            with pytest.raises(OSError, match=r"is no regular file|Too many levels of symbolic links"):
                open_regular(path)


def test_a_link_is_followed_where_it_may_be_but_not_to_a_device(tmp_path):
    a_link(tmp_path / "link")
    with open_regular(tmp_path / "link", follow_links=True) as file:
        assert file.read() == b"{}"
    (tmp_path / "zero").symlink_to("/dev/zero")
    with pytest.raises(OSError, match="is no regular file"):
        open_regular(tmp_path / "zero", follow_links=True)


def test_a_large_file_is_refused(tmp_path):
    (tmp_path / "x").write_bytes(b"12345")
    assert read_bytes(tmp_path / "x", most=5) == b"12345"
    with pytest.raises(OSError, match="is larger than 0 MiB"):
        read_bytes(tmp_path / "x", most=4)
    os.truncate(tmp_path / "x", 2**33)  # it has holes: on the disk it is small
    with pytest.raises(OSError, match="is larger than 64 MiB"):
        read_bytes(tmp_path / "x")


def test_links_and_pipes_of_a_directory_are_found(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").touch()
    assert find_irregular([*tmp_path.rglob("*"), tmp_path / "gone"]) is None
    os.mkfifo(tmp_path / "a" / "pipe")
    assert find_irregular(tmp_path.iterdir()) is None
    assert find_irregular(tmp_path.rglob("*")) == f"{tmp_path}/a/pipe: is no regular file"


def test_what_is_written_replaces_the_whole_file(tmp_path):
    path = tmp_path / "new" / "x"
    write_atomically(path, b"old")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o644
    assert list(path.parent.iterdir()) == [path]


def test_a_name_as_long_as_a_name_can_be(tmp_path):
    write_atomically(tmp_path / ("x" * 255), b"new")
    assert [len(path.name) for path in tmp_path.iterdir()] == [255]


@pytest.mark.parametrize("kind", ["link", "broken link"])
def test_a_link_is_replaced_not_followed(tmp_path, kind):
    IRREGULAR[kind][0](tmp_path / "x")
    write_atomically(tmp_path / "x", b"new")
    assert not (tmp_path / "x").is_symlink()
    assert not (tmp_path / "nowhere").exists()
    assert kind != "link" or (tmp_path / "victim").read_text() == "{}"


@pytest.mark.parametrize("kind", ["pipe", "socket", "directory"])
def test_what_is_no_file_is_not_written(tmp_path, kind):
    """A link /dev/null would be a bad end of an export."""
    make, said = IRREGULAR[kind]
    make(tmp_path / "x")
    with pytest.raises(OSError, match=said):
        write_atomically(tmp_path / "x", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    (tmp_path / "x").write_bytes(b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(tmp_path / "x", b"new")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("x", b"old")]


def test_the_name_of_a_draft_cannot_be_guessed_and_is_never_one_that_is_there(tmp_path, monkeypatch):
    names = []
    replace = Path.replace
    monkeypatch.setattr(Path, "replace", lambda self, target: names.append(self.name) or replace(self, target))
    for _ in range(20):
        write_atomically(tmp_path / "x", b"new")
    assert len(set(names)) == 20
    assert all(re.fullmatch(r"\.[0-9a-f]{16}\.draft", name) for name in names)
    (tmp_path / ".guessed.draft").symlink_to(tmp_path / "victim")
    monkeypatch.setattr(files.secrets, "token_hex", lambda size: "guessed")
    with pytest.raises(FileExistsError):
        write_atomically(tmp_path / "x", b"new")
    assert not (tmp_path / "victim").exists()


def drafts(directory: Path) -> list[Path]:
    return [path for path in directory.iterdir() if path.suffix == ".draft"]


def test_the_draft_of_a_killed_writer_is_removed_and_that_of_a_living_one_kept(tmp_path):
    command = [sys.executable, "-c", WRITER, str(tmp_path / "slow")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        try:
            assert writer.stdout.readline() == "writing\n"
            (draft,) = drafts(tmp_path)
            write_atomically(tmp_path / "x", b"new")
            remove_drafts(tmp_path)
            assert drafts(tmp_path) == [draft]
        finally:
            writer.kill()
    write_atomically(tmp_path / "x", b"newer")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_what_only_looks_like_a_draft_stays(tmp_path):
    name = f".{'0' * 16}.draft"
    (tmp_path / "draft").touch()
    (tmp_path / f".{'0' * 16}.draft.txt").touch()
    (tmp_path / name).mkdir()
    remove_drafts(tmp_path)
    assert len(list(tmp_path.iterdir())) == 3
    (tmp_path / name).rmdir()
    os.mkfifo(tmp_path / name)
    remove_drafts(tmp_path)
    assert (tmp_path / name).exists()


def test_a_draft_that_was_taken_for_one_of_a_dead_writer_is_made_again(tmp_path, monkeypatch):
    """Between its making and its lock another writer may find it."""
    lock, seen = fcntl.flock, []

    def late(descriptor: int, how: int) -> None:
        if how == fcntl.LOCK_EX and not seen:
            seen.extend(drafts(tmp_path))
            for draft in seen:
                draft.unlink()
        lock(descriptor, how)

    monkeypatch.setattr(files.fcntl, "flock", late)
    write_atomically(tmp_path / "x", b"new")
    assert len(seen) == 1
    assert (tmp_path / "x").read_bytes() == b"new"


def test_many_writers_of_one_directory(tmp_path):
    """None takes the draft of another, and every file is whole."""
    failed: list[BaseException] = []

    def write(number: int) -> None:
        try:
            for _ in range(25):
                write_atomically(tmp_path / f"{number % 2}", bytes([number]) * 1000)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1"]
    assert all(len(set(path.read_bytes())) == 1 and path.stat().st_size == 1000 for path in tmp_path.iterdir())
