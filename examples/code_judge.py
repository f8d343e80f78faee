"""A code judge: untrusted C is compiled, run and compared, all within limits. Needs root, for these.

The compiler is a target, too: it runs in a container of its own, and what it makes comes out through a pipe.
"""

from __future__ import annotations

import os
import tempfile

from cycontainer import DEVNULL, run

COMPILE = "cc -O2 -x c - -o /tmp/program -lm && cat /tmp/program"
MOST_PRINTED = 64 << 10  # bytes
LARGEST = 16 << 20  # of what the compiler makes
VERDICTS = {"timeout": "TLE", "memory": "MLE", "output_limit": "OLE"}


def judge(source: str, question: bytes, answer: bytes) -> str:
    """AC accepted, WA wrong answer, TLE too long, MLE too much memory, OLE prints too much, RE died or failed, CE does
    not compile."""
    made = run(
        ["sh", "-c", COMPILE],
        input=source, stderr=DEVNULL, output_limit=LARGEST, timeout=10, memory=256 << 20, pids=16,
    )  # fmt: skip
    if made.returncode != 0:
        return "CE"
    with tempfile.TemporaryDirectory() as directory:
        with open(f"{directory}/program", "wb") as file:
            file.write(made.stdout)
        os.chmod(file.name, 0o755)
        program = {"destination": "/tmp/program", "source": file.name, "options": ["bind", "ro"]}
        result = run(
            ["/tmp/program"],
            input=question, stderr=DEVNULL, output_limit=MOST_PRINTED, mounts=[program], timeout=1, memory=32 << 20,
            pids=4,
        )  # fmt: skip
    if result.returncode != 0:
        return VERDICTS.get(result.ended_by, "RE")
    return "AC" if result.stdout.split() == answer.split() else "WA"


SUBMISSIONS = {
    "adds": '#include <stdio.h>\nint main() { int a, b; scanf("%d %d", &a, &b); printf("%d\\n", a + b); }',
    "subtracts": '#include <stdio.h>\nint main() { int a, b; scanf("%d %d", &a, &b); printf("%d\\n", a - b); }',
    "loops": "int main() { for (;;); }",
    "eats memory": "#include <string.h>\nchar big[1 << 30]; int main() { memset(big, 1, sizeof big); return big[7]; }",
    "crashes": "int main() { return *(volatile int *) 0; }",
    "floods": '#include <stdio.h>\nint main() { for (;;) puts("all work and no play"); }',
    "forks": "#include <unistd.h>\nint main() { while (fork() >= 0); return 1; }",
    "is no C": "print('hello')",
    "attacks the compiler": '#include "/dev/zero"',
}


def main() -> None:
    for name, source in SUBMISSIONS.items():
        print(f"{judge(source, b'40 2', b'42'):4} a program that {name}")


if __name__ == "__main__":
    main()
