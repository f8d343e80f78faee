"""A sandbox for an agent: what its scripts print is shown as it comes, a flood is ended, and files stay between calls.

The model is played by a list of scripts. Nothing that they write is a file of this machine.
"""

from __future__ import annotations

from cycontainer import stream

SCRIPTS = (
    "echo 'print(sum(range(10)))' > answer.py; echo written",
    "python3 answer.py | tee result; echo 'that was easy' >&2",
    "yes 'the model is stuck'",
    "ls; ls /home | wc -l; cat result",
)
MOST_SAID = 2_000  # bytes that a model has to read at most


def call(script: str, files: dict[str, bytes]) -> dict[str, bytes]:
    """Run a script, say what it says, and return the files that it leaves."""
    said = 0
    started = stream(["sh", "-c", script], files=files, collect=["**"], timeout=10, output_limit=MOST_SAID, text=True)
    with started as lines:
        for line in lines:
            said += len(line.data)
            if said < 200:  # a person has seen enough of it then
                print(f"  {line.source}: {line.data}", end="")
    result = lines.result
    end = "it talks too much" if result.output_exceeded else f"exit status {result.returncode}"
    print(f"  {end}")
    for path, why in list(result.refused.items())[:10]:
        print(f"  not kept: {path!r}, {why}")
    return result.files  # also of a container that was ended


def main() -> None:
    files: dict[str, bytes] = {}
    for script in SCRIPTS:
        print(script)
        files = call(script, files)
    print("files:", ", ".join(sorted(files)))


if __name__ == "__main__":
    main()
