"""Two tools at once, in asyncio: one writes, the other reviews what it wrote."""

import asyncio
import sys

from readyroom import AsyncCluster


async def main(files: list[str], writer: str = "aider", reviewer: str = "aider") -> None:
    async with AsyncCluster(writer, 2) as writers, AsyncCluster(reviewer, 2, permissions="read") as reviewers:

        async def work(file: str) -> None:
            await writers.ask("Add type hints", files=[file])
            review = await reviewers.ask("Review the type hints", files=[file], mode="ask")
            print(f"{file}: {review.text.strip()}")

        await asyncio.gather(*(work(file) for file in files))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
