"""The decisions that still answer for their task when it is offered again."""

from collections import deque

from shared.decisions import Decision

Mark = tuple[int, int]
"""Where a memory stood: places, counted from its first decision, of the oldest and of the next."""


class Repeats:
    """The latest decisions, by task, in the order they were made.

    At 100 offers a second there are 6,000 of them, and the daemon wants to be able to come back to
    where it stood before every transaction; so that costs what has changed since, not a copy.
    """

    def __init__(self) -> None:
        """None yet."""
        self._by_task: dict[str, Decision] = {}
        self._made: deque[Decision] = deque()
        self._first = self._oldest = 0
        self._kept: int | None = None

    def __len__(self) -> int:
        return len(self._by_task)

    def get(self, task_id: str) -> Decision | None:
        """The task's decision, if it is remembered."""
        return self._by_task.get(task_id)

    def remember(self, decision: Decision, window_ms: int) -> None:
        """Keep a decision, and drop those that are more than ``window_ms`` older than it.

        Of its task none may be remembered that is not dropped by this.
        """
        while self._by_task and self._at(self._oldest).at_ms < decision.at_ms - window_ms:
            del self._by_task[self._at(self._oldest).task_id]
            self._oldest += 1
        self._let_go()
        self._by_task[decision.task_id] = decision
        self._made.append(decision)

    def mark(self) -> Mark:
        """Where the memory stands, to come back to until the next ``mark``."""
        self._kept = self._oldest
        self._let_go()
        return self._oldest, self._first + len(self._made)

    def back_to(self, mark: Mark) -> None:
        """What was remembered and dropped since that ``mark`` has not been."""
        oldest, following = mark
        while self._first + len(self._made) > following:
            made = self._made.pop()
            if self._by_task.get(made.task_id) is made:
                del self._by_task[made.task_id]
        for place in range(oldest, min(self._oldest, following)):
            self._by_task[self._at(place).task_id] = self._at(place)
        self._oldest = oldest

    def copy(self) -> "Repeats":
        """The same memory; its marks are good for both."""
        twin = Repeats()
        twin.__dict__.update(self.__dict__)
        twin._by_task, twin._made = dict(self._by_task), self._made.copy()
        return twin

    def _at(self, place: int) -> Decision:
        return self._made[place - self._first]

    def _let_go(self) -> None:
        """Drop what neither answers any more nor is needed to come back."""
        needed = self._oldest if self._kept is None else self._kept
        while self._first < needed:
            self._made.popleft()
            self._first += 1
