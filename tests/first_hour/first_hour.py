#!/usr/bin/env python3
"""A newcomer's first hour: types what README.md and docs/ show into a terminal of 80 columns.

    tests/first_hour/first_hour.py build/release/quern

Each command must end well, print what its page says, and leave the screen in order: words whole,
a progress bar on one line. Exits 77 where tmux is missing.
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGES = ["README.md", "docs/install.md", "docs/chat.md", "docs/measure.md", "docs/json.md"]
COLUMNS = 80
PATIENCE = 300  # seconds for a command


class Terminal:
    """A shell in tmux. Its prompt is the exit code of the last command."""

    def __init__(self, folder, program):
        self.socket = f"quern-first-hour-{os.getpid()}"
        environment = {
            "HOME": str(folder),
            "PATH": f"{program.parent}:{os.environ['PATH']}",
            "LC_ALL": "C.UTF-8",
            "PS1": "<$?> ",
            # What a page lets train for minutes is begun, and seen to work.
            "QUERN_PRETRAIN_SET": "train.steps=20",
        }
        words = [f"{name}={value}" for name, value in environment.items()]
        self.tmux("-f", "/dev/null", "new-session", "-d", "-x", str(COLUMNS), "-y", "50", "-c", str(folder),
                  "env", *words, "bash", "--norc", "--noprofile")
        self.tmux("set-option", "-g", "history-limit", "20000")
        self.wait()

    def tmux(self, *words):
        done = subprocess.run(["tmux", "-L", self.socket, *words], capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"tmux {' '.join(words)}: {done.stderr}")
        return done.stdout

    def screen(self, joined=False):
        return self.tmux("capture-pane", "-p", "-S", "-", *(["-J"] if joined else []))

    def wait(self, pattern=r"<(\d+)> ?$"):
        end = time.time() + PATIENCE
        while time.time() < end:
            lines = self.screen().rstrip("\n").split("\n")
            found = re.search(pattern, lines[-1])
            if found:
                return found
            time.sleep(0.1)
        sys.exit(f"waited {PATIENCE} s for {pattern} on:\n{self.screen()}")

    def send(self, text):
        self.tmux("send-keys", "-l", text)
        self.tmux("send-keys", "Enter")

    def run(self, command):
        """The exit code, and the lines that the terminal shows below the command."""
        self.tmux("send-keys", "C-l")
        time.sleep(0.2)
        self.tmux("clear-history")
        self.send(command)
        time.sleep(0.3)
        code = int(self.wait()[1])
        # Lines that the terminal wrapped are one again; the first is the command, the last the prompt.
        return code, self.screen(joined=True).rstrip("\n").split("\n")[1:-1]

    def close(self):
        self.tmux("kill-server")


def blocks(page):
    """(commands, output or None) of each block that is marked to be run."""
    text = (ROOT / page).read_text()
    for match in re.finditer(r"^```sh run\n(.*?)^```\n(?:\s*```text\n(.*?)^```\n)?", text, re.M | re.S):
        commands = match[1].replace("\\\n", "").strip().split("\n")
        yield [re.sub(r"\s{2,}# .*", "", c) for c in commands], match[2]


def same(shown, printed):
    """Word for word, measured numbers within a few percent: a page's machine is another one."""
    a, b = shown.split(), printed.split()
    if len(a) != len(b):
        return False
    for x, y in zip(a, b):
        number = r"-?\d+\.\d+"
        if x != y and not (re.fullmatch(number, x) and re.fullmatch(number, y)
                           and abs(float(x) - float(y)) <= 0.02 * abs(float(x))):
            return False
    return True


def bars(lines):
    return sum(1 for line in lines if "█" in line or "░" in line)


def main():
    if shutil.which("tmux") is None:
        print("skipped: needs tmux")
        return 77
    program = pathlib.Path(sys.argv[1]).resolve()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="quern-first-hour-"))
    for name in ("models", "recipes", "src", "docs", "tests"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "MODEL").symlink_to(ROOT / "models/quern-mini")
    (folder / "book.txt").write_text("All happy families are alike. " * 667)
    (folder / "run").write_text('#!/bin/sh\nexec quern "$@"\n')
    (folder / "run").chmod(0o755)
    failures = []
    terminal = Terminal(folder, program)
    try:
        for page in PAGES:
            for commands, shown in blocks(page):
                printed = []
                for command in commands:
                    if command.startswith("quern chat models/quern-mini --seed"):
                        failures += converse(terminal, command)
                        continue
                    code, lines = terminal.run(command)
                    print(f"{'ok  ' if code == 0 else 'FAIL'} {page}: {command}")
                    if code != 0:
                        failures.append(f"{page}: {command} ends with {code}:\n" + "\n".join(lines))
                    if bars(lines) > 2:
                        failures.append(f"{page}: {command} leaves bars behind:\n" + "\n".join(lines))
                    printed = [line for line in lines if bars([line]) == 0]  # pages show results only
                if shown and "..." not in shown and not same(shown, "\n".join(printed)):
                    failures.append(f"{page} shows\n{shown}but the terminal\n" + "\n".join(printed))
    finally:
        terminal.close()
        shutil.rmtree(folder, ignore_errors=True)  # the shell may still be writing its history
    for failure in failures:
        print(failure)
    return 1 if failures else 0


def converse(terminal, command):
    """A conversation: words stay whole at the right edge, /stats tells the seed."""
    terminal.tmux("send-keys", "C-l")
    time.sleep(0.2)
    terminal.tmux("clear-history")
    terminal.send(command)
    terminal.wait(r"^> ?$")
    terminal.send("Tell me a story about a dog.")
    time.sleep(1)
    terminal.wait(r"^> ?$")
    # Without this a word that the terminal itself broke would look like one that ended there.
    plain, joined = terminal.screen().split("\n"), terminal.screen(joined=True).split("\n")
    failures = []
    story = [line for line in plain if line.strip()]
    if len(plain) != len(joined):
        failures.append("chat: the terminal had to wrap:\n" + "\n".join(story))
    terminal.send("/stats")
    time.sleep(0.5)
    terminal.wait(r"^> ?$")
    seed = re.search(r"--seed (\d+)", command)[1]
    if f"seed {seed}]" not in " ".join(terminal.screen().split()):
        failures.append("chat: /stats shows no seed:\n" + terminal.screen())
    terminal.send("/quit")
    terminal.wait()
    print(f"{'FAIL' if failures else 'ok  '} README.md: {command}")
    return failures


if __name__ == "__main__":
    sys.exit(main())
