"""Fifty containers in one event loop, eight at a time; one takes too long, and is gone when it has been cancelled."""

from __future__ import annotations

import asyncio

from cycontainer import PIPE, aio

COUNT, AT_ONCE = 50, 8


async def answer(number: int, gate: asyncio.Semaphore) -> str:
    script = "sleep 1000" if number == 13 else f"echo $(({number} * {number}))"
    async with gate:
        try:
            async with asyncio.timeout(1 if number == 13 else None):
                result = await aio.run(["sh", "-c", script], text=True)
                return str(result.stdout).strip()
        except TimeoutError:
            return "too late"


async def main() -> None:
    gate = asyncio.Semaphore(AT_ONCE)
    answers = await asyncio.gather(*(answer(number, gate) for number in range(COUNT)))
    print("the last:", answers[-1])
    print("number 13:", answers[13])
    print("right:", sum(text == str(number**2) for number, text in enumerate(answers)))
    async with await aio.spawn(["sh", "-c", "read word; echo $word, $word"], stdin=PIPE, stdout=PIPE) as shell:
        print("and one that is spoken to:", await talk(shell))


async def talk(shell: aio.Spawned) -> str:
    assert shell.stdin and shell.stdout
    shell.stdin.write(b"hello\n")
    await shell.stdin.drain()
    return (await shell.stdout.readline()).decode().strip()


if __name__ == "__main__":
    asyncio.run(main())
