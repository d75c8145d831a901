"""A batch that can be killed and resumed: python examples/batch_refactor.py "Add type hints" src/*.py

Typed again with no arguments, it goes on where it was stopped.
"""

import sys

from readyroom import Job, Outcome, resume, run_batch


def tell(outcome: Outcome) -> None:
    print(f"{outcome.id}: {outcome.outcome}" + (f" ({outcome.error})" if outcome.error else ""))


def main(prompt: str, files: list[str], tool: str = "aider") -> int:
    if files:
        jobs = [Job(prompt, files=[file], id=file) for file in files]
        result = run_batch(jobs, tool=tool, instances=3, on_outcome=tell)
    else:
        result = resume(on_outcome=tell)
    print(f"batch {result.batch}: {len(result) - len(result.failed)} of {len(result)} succeeded")
    return result.status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if sys.argv[1:] else "", sys.argv[2:]))
